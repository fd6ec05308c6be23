// The team of threads (threads.h), and the constants that native.py reads.

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "threads.h"
#include "vectors.h"

#define SPIN_NS 200000  // for which an idle member looks for a call before it sleeps
#define LOOKS 64        // after so many looks, some microseconds, a waiting thread yields its core
#define CLOSED (1 << 20)
#define OWN_LINE _Alignas(128)  // a cache line of its own: threads that read one variable don't slow writes to another

static struct {
    atomic_int wanted;   // members, the caller included
    atomic_flag taken;   // whether a call has the team
    atomic_int refused;  // the value of `wanted` for which the system could not start all members, or 0
    int started;         // threads besides the caller, for the call that has the team
    // The call. A member adds 1 to the gate when it comes, and takes it off when it goes. If the gate was below 0, the
    // call is over.
    Work work;
    const void *arguments;
    int64_t pieces, members;
    OWN_LINE atomic_llong next;
    OWN_LINE atomic_int gate;
    // Members wait for the next call; those beyond `wanted` wait for `set_members`.
    OWN_LINE atomic_uint calls;
    OWN_LINE atomic_int sleepers;
    pthread_mutex_t mutex;
    pthread_cond_t wake, wanted_again;
} team = {
    .wanted = 1,
    .taken = ATOMIC_FLAG_INIT,
    .gate = -CLOSED,
    .mutex = PTHREAD_MUTEX_INITIALIZER,
    .wake = PTHREAD_COND_INITIALIZER,
    .wanted_again = PTHREAD_COND_INITIALIZER,
};

// Lets a little time pass after the `look`-th look in a row.
static inline void rest(int64_t look) {
    if (look % LOOKS == LOOKS - 1) {
        sched_yield();
        return;
    }
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void work_off(int64_t member) {
    for (int64_t piece; (piece = atomic_fetch_add(&team.next, 1)) < team.pieces;)
        team.work(team.arguments, piece, member);
}

// Waits until `calls` differs from `seen`: there was another call.
static void wait_for_call(unsigned seen) {
    const int64_t end = nanoseconds() + SPIN_NS;
    for (int64_t look = 0; look % LOOKS || nanoseconds() < end; rest(look++))
        if (atomic_load(&team.calls) != seen) return;
    pthread_mutex_lock(&team.mutex);
    atomic_fetch_add(&team.sleepers, 1);  // before the last look at `calls`: a caller reads it after its own change
    while (atomic_load(&team.calls) == seen) pthread_cond_wait(&team.wake, &team.mutex);
    atomic_fetch_sub(&team.sleepers, 1);
    pthread_mutex_unlock(&team.mutex);
}

static void wait_to_be_wanted(int64_t member) {
    pthread_mutex_lock(&team.mutex);
    while (member >= atomic_load(&team.wanted)) pthread_cond_wait(&team.wanted_again, &team.mutex);
    pthread_mutex_unlock(&team.mutex);
}

static void *member_of_team(void *number) {
    const int64_t member = (int64_t)(intptr_t)number;
    for (;;) {
        if (member >= atomic_load(&team.wanted)) wait_to_be_wanted(member);
        const unsigned seen = atomic_load(&team.calls);
        if (atomic_fetch_add(&team.gate, 1) >= 0 && member < team.members) work_off(member);
        atomic_fetch_sub(&team.gate, 1);
        wait_for_call(seen);
    }
    return NULL;
}

// In a forked child the other members do not exist.
static void after_fork(void) {
    team.started = 0;
    atomic_store(&team.refused, 0);
    atomic_store(&team.gate, -CLOSED);
    atomic_store(&team.sleepers, 0);
    atomic_flag_clear(&team.taken);
    pthread_mutex_init(&team.mutex, NULL);
    pthread_cond_init(&team.wake, NULL);
    pthread_cond_init(&team.wanted_again, NULL);
}

__attribute__((constructor)) static void call_at_fork(void) {
    pthread_atfork(NULL, NULL, after_fork);
}

// Starts members until there are `wanted`, or as many as the system can start. The call has the team.
static void start_members(int wanted) {
    sigset_t others, before;
    sigfillset(&others);  // signals are for Python's threads, except those of errors in the thread itself
    sigdelset(&others, SIGSEGV);
    sigdelset(&others, SIGBUS);
    sigdelset(&others, SIGFPE);
    sigdelset(&others, SIGILL);
    sigdelset(&others, SIGABRT);
    pthread_sigmask(SIG_SETMASK, &others, &before);
    while (team.started + 1 < wanted) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, member_of_team, (void *)(intptr_t)(team.started + 1))) break;
        pthread_detach(thread);
        team.started++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (team.started + 1 < wanted) atomic_store(&team.refused, wanted);  // so that not every call tries again
}

void share_among(Work work, const void *arguments, int64_t pieces, int64_t members) {
    const int wanted = atomic_load(&team.wanted);
    if (pieces < 2 || members < 2 || wanted < 2 || atomic_flag_test_and_set(&team.taken)) {
        for (int64_t piece = 0; piece < pieces; ++piece) work(arguments, piece, 0);
        return;
    }
    if (team.started + 1 < wanted && atomic_load(&team.refused) != wanted) start_members(wanted);
    team.work = work;
    team.arguments = arguments;
    team.pieces = pieces;
    team.members = members;
    atomic_store(&team.next, 0);
    atomic_fetch_add(&team.gate, CLOSED);  // open: members that come from here on see all of the above
    atomic_fetch_add(&team.calls, 1);
    if (atomic_load(&team.sleepers)) {
        pthread_mutex_lock(&team.mutex);
        pthread_cond_broadcast(&team.wake);
        pthread_mutex_unlock(&team.mutex);
    }
    work_off(0);
    atomic_fetch_sub(&team.gate, CLOSED);
    for (int64_t look = 0; atomic_load(&team.gate) != -CLOSED; ++look) rest(look);
    atomic_flag_clear(&team.taken);
}

void set_members(int64_t members) {
    pthread_mutex_lock(&team.mutex);
    atomic_store(&team.wanted, (int)(members < 1 ? 1 : members > MAX_MEMBERS ? MAX_MEMBERS : members));
    atomic_store(&team.refused, 0);
    pthread_cond_broadcast(&team.wanted_again);
    pthread_mutex_unlock(&team.mutex);
}

// The compiler, and the size of vectors in bytes.
#define TEXT_OF(number) #number
#define TEXT(number) TEXT_OF(number)
#if defined(__clang__)
#define COMPILER "clang " TEXT(__clang_major__) "." TEXT(__clang_minor__) "." TEXT(__clang_patchlevel__)
#else
#define COMPILER "gcc " TEXT(__GNUC__) "." TEXT(__GNUC_MINOR__) "." TEXT(__GNUC_PATCHLEVEL__)
#endif
__attribute__((visibility("default"))) const char *const compiled_by = COMPILER;
__attribute__((visibility("default"))) const int64_t vector_bytes = VECTOR_BYTES;
