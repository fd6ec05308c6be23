// A team of threads that share the pieces of a call.
//
// `share(work, arguments, pieces)` calls work(arguments, piece, member) for each piece, in any order, and returns
// when all are done. `member` numbers the threads from 0, the caller. How a call is cut into pieces must depend on
// sizes alone, and each piece writes its own numbers, so that results are the same on any number of threads. A work
// may not call `share`.
//
// Memory that a call brings along for each member has room for as many as it was made for:
// `share_among(work, arguments, pieces, members)` lets no more of them in, whatever `set_members` says meanwhile.
// One call at a time has the team. A call from another thread of Python's meanwhile does its pieces alone, as its
// own member 0, and so does a process that was forked until it starts members of its own.
//
// A member that has nothing to do looks for the next call for a while before it sleeps: to wake a thread takes
// longer than most kernels do (a caller some 20 us, and the member comes 50 us later).

#include <stdint.h>

#define MAX_MEMBERS 1024

typedef void (*Work)(const void *arguments, int64_t piece, int64_t member);

void share_among(Work work, const void *arguments, int64_t pieces, int64_t members);

static inline void share(Work work, const void *arguments, int64_t pieces) {
    share_among(work, arguments, pieces, MAX_MEMBERS);
}

// Sets the number of members, from 1 to MAX_MEMBERS.
__attribute__((visibility("default"))) void set_members(int64_t members);
