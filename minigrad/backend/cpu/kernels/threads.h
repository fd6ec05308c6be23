// A team of threads that share the pieces of a call.
//
// `share(work, arguments, pieces)` calls work(arguments, piece, member) for each piece, in any order, and returns
// when all are done. `member` numbers the threads from 0, the caller: memory of its own is found by it. How a call
// is cut into pieces must depend on sizes alone, and each piece writes its own numbers, so that results are the
// same on any number of threads.
//
// A member that has nothing to do looks for the next call for a while before it sleeps: to wake a thread takes
// longer than most kernels do. One call at a time has the team. A call from another thread of Python's meanwhile
// does its pieces alone, and so does a process that was forked until it starts members of its own.

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>

#define MAX_MEMBERS 1024
#define LOOKS (1 << 14)  // for work, before a member sleeps: some 0.2 ms
#define CLOSED (1 << 20)

typedef void (*Work)(const void *arguments, int64_t piece, int64_t member);

static struct {
    atomic_int wanted;   // members, the caller included
    int started;         // threads besides the caller
    atomic_flag taken;   // whether a call has the team
    // The call. A member that comes in adds 1 to the gate; where that was below 0, the call is over.
    Work work;
    const void *arguments;
    int64_t pieces;
    atomic_llong next;
    atomic_int gate;
    // Where members wait for it.
    atomic_uint calls;
    atomic_int sleepers;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
} team = {
    .wanted = 1,
    .taken = ATOMIC_FLAG_INIT,
    .gate = -CLOSED,
    .mutex = PTHREAD_MUTEX_INITIALIZER,
    .wake = PTHREAD_COND_INITIALIZER,
};

static inline void rest(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void work_off(int64_t member) {
    for (int64_t piece; (piece = atomic_fetch_add(&team.next, 1)) < team.pieces;)
        team.work(team.arguments, piece, member);
}

// Waits until there was another call than the one seen last; returns its number.
static unsigned next_call(unsigned seen) {
    for (int look = 0; look < LOOKS; ++look, rest())
        if (atomic_load(&team.calls) != seen) return atomic_load(&team.calls);
    pthread_mutex_lock(&team.mutex);
    atomic_fetch_add(&team.sleepers, 1);
    while (atomic_load(&team.calls) == seen) pthread_cond_wait(&team.wake, &team.mutex);
    atomic_fetch_sub(&team.sleepers, 1);
    pthread_mutex_unlock(&team.mutex);
    return atomic_load(&team.calls);
}

static void *member_of_team(void *number) {
    int64_t member = (int64_t)(intptr_t)number;
    for (unsigned seen = 0;;) {
        seen = next_call(seen);
        if (member >= atomic_load(&team.wanted)) continue;
        if (atomic_fetch_add(&team.gate, 1) >= 0) work_off(member);
        atomic_fetch_sub(&team.gate, 1);
    }
    return NULL;
}

// In a child the other members are not there, whatever they were doing.
static void after_fork(void) {
    team.started = 0;
    atomic_store(&team.gate, -CLOSED);
    atomic_store(&team.calls, 0);
    atomic_store(&team.sleepers, 0);
    atomic_flag_clear(&team.taken);
    pthread_mutex_init(&team.mutex, NULL);
    pthread_cond_init(&team.wake, NULL);
}

// Starts the members that are wanted, or as many as the system has room for. The call has the team.
static void start_members(void) {
    static bool at_fork = false;
    if (!at_fork) at_fork = pthread_atfork(NULL, NULL, after_fork) == 0;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);  // a signal is for Python's own threads
    while (team.started + 1 < atomic_load(&team.wanted)) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, member_of_team, (void *)(intptr_t)(team.started + 1))) break;
        pthread_detach(thread);
        team.started++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void share(Work work, const void *arguments, int64_t pieces) {
    if (pieces < 2 || atomic_load(&team.wanted) < 2 || atomic_flag_test_and_set(&team.taken)) {
        for (int64_t piece = 0; piece < pieces; ++piece) work(arguments, piece, 0);
        return;
    }
    if (team.started + 1 < atomic_load(&team.wanted)) start_members();
    team.work = work;
    team.arguments = arguments;
    team.pieces = pieces;
    atomic_store(&team.next, 0);
    atomic_fetch_add(&team.gate, CLOSED);
    atomic_fetch_add(&team.calls, 1);
    if (atomic_load(&team.sleepers)) {
        pthread_mutex_lock(&team.mutex);
        pthread_cond_broadcast(&team.wake);
        pthread_mutex_unlock(&team.mutex);
    }
    work_off(0);
    atomic_fetch_sub(&team.gate, CLOSED);
    for (int look = 0; atomic_load(&team.gate) != -CLOSED; ++look) {
        rest();
        if (look > LOOKS) sched_yield();
    }
    atomic_flag_clear(&team.taken);
}

// Sets the number of members, from 1 to MAX_MEMBERS.
__attribute__((visibility("default"))) void set_members(int64_t members) {
    atomic_store(&team.wanted, (int)(members < 1 ? 1 : members > MAX_MEMBERS ? MAX_MEMBERS : members));
}
