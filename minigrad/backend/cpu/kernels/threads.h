// A team of threads that share the work of a call.
//
// `share(work, arguments, pieces)` calls work(arguments, piece, member) for each piece, in any order, and returns
// when all are done. `member` is the number of the thread; 0 is the caller. The pieces must depend on sizes only, and
// each must write numbers of its own, so that results are the same on any number of threads. `work` must not call
// `share`.
//
// `share_among(work, arguments, pieces, members)` uses at most so many members. It is for calls with memory for each
// member, which was allocated before: `set_members` may be called in between.
//
// One call at a time has the team. If another thread of the process makes a call meanwhile, it does all pieces itself,
// as member 0. A forked child starts threads of its own at its first call.
//
// An idle thread looks for the next call for a while before it sleeps. Waking it takes longer than most kernels run:
// about 20 us of the caller, and 50 us more until it begins.

#include <stdint.h>

#define MAX_MEMBERS 1024

typedef void (*Work)(const void *arguments, int64_t piece, int64_t member);

void share_among(Work work, const void *arguments, int64_t pieces, int64_t members);

static inline void share(Work work, const void *arguments, int64_t pieces) {
    share_among(work, arguments, pieces, MAX_MEMBERS);
}

// Sets the number of members, from 1 to MAX_MEMBERS.
__attribute__((visibility("default"))) void set_members(int64_t members);
