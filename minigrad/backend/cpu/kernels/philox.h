// The random numbers of dropout: Philox4x64-10.
//
// A block is four words of 64 bits, used as sixteen draws of 16 bits, the lowest first. Block b of a stream has the
// given counter plus b; a stream begins with block 1. Must equal minigrad.naive.philox. Operations: 20 products of 64
// by 64 bits a block.
// Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011), section 3.3.

#define DRAWS 16  // of a block

typedef struct {
    uint64_t key[2], counter[4];
} Place;

static inline uint64_t high(uint64_t a, uint64_t b) { return (uint64_t)(((unsigned __int128)a * b) >> 64); }

// Makes the draws of `count` blocks: first, first + 1, ... All blocks use the same keys of the rounds.
static inline void philox(Place place, uint64_t first, int64_t count, uint16_t *draws) {
    uint64_t keys[10][2];
    for (int round = 0; round < 10; ++round) {
        keys[round][0] = place.key[0] + round * 0x9E3779B97F4A7C15u;
        keys[round][1] = place.key[1] + round * 0xBB67AE8584CAA73Bu;
    }
    for (uint64_t block = first; block < first + count; ++block, draws += DRAWS) {
        uint64_t x0 = place.counter[0] + block, x1 = place.counter[1], x2 = place.counter[2], x3 = place.counter[3];
        if (x0 < block && ++x1 == 0 && ++x2 == 0) ++x3;  // a counter of 256 bits
        UNROLL for (int round = 0; round < 10; ++round) {
            const uint64_t a = 0xD2E7470EE14C6C93u * x0, b = 0xCA5A826395121157u * x2;
            const uint64_t c = high(0xD2E7470EE14C6C93u, x0), d = high(0xCA5A826395121157u, x2);
            x0 = d ^ x1 ^ keys[round][0];
            x1 = b;
            x2 = c ^ x3 ^ keys[round][1];
            x3 = a;
        }
        const uint64_t words[4] = {x0, x1, x2, x3};
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
        memcpy(draws, words, sizeof(words));  // the lowest bits come first
#else
        for (int i = 0; i < DRAWS; ++i) draws[i] = (uint16_t)(words[i / 4] >> (16 * (i % 4)));
#endif
    }
}
