// The team of threads (threads.h), and what native.py reads of the library.

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "threads.h"
#include "vectors.h"

#define SPIN_NS 200000  // before a member sleeps
#define LOOKS 64        // before a thread that waits yields its core: some microseconds
#define CLOSED (1 << 20)
#define OWN_LINE _Alignas(128)  // so that threads that look at one variable don't slow who changes another

static struct {
    atomic_int wanted;   // members, the caller included
    atomic_flag taken;   // whether a call has the team
    atomic_int refused;  // members that the system had no room for, since they were asked for
    int started;         // threads besides the caller, for the call that has the team
    // The call. A member that comes in adds 1 to the gate; where that was below 0, the call is over.
    Work work;
    const void *arguments;
    int64_t pieces, members;
    OWN_LINE atomic_llong next;
    OWN_LINE atomic_int gate;
    // Where members wait for it. Those that are not wanted now wait to be.
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

// Lets some time pass, the `look`-th time in a row.
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

// Waits until there was another call than the one seen last.
static void wait_for_call(unsigned seen) {
    const int64_t end = nanoseconds() + SPIN_NS;
    for (int64_t look = 0; look % LOOKS || nanoseconds() < end; rest(look++))
        if (atomic_load(&team.calls) != seen) return;
    pthread_mutex_lock(&team.mutex);
    atomic_fetch_add(&team.sleepers, 1);  // before it looks once more: a caller looks at it after its call
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

// In a child the other members are not there, whatever they were doing.
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

// Starts the members that are wanted, or as many as the system has room for. The call has the team.
static void start_members(int wanted) {
    sigset_t others, before;
    sigfillset(&others);  // a signal is for Python's own threads, but for what the thread itself does wrong
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
    if (team.started + 1 < wanted) atomic_store(&team.refused, wanted);  // not to be asked for at each call
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
    atomic_fetch_add(&team.gate, CLOSED);  // open: who comes in from here on sees all of the above
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

// By what it was compiled, and the bytes of its vectors.
#define TEXT_OF(number) #number
#define TEXT(number) TEXT_OF(number)
#if defined(__clang__)
#define COMPILER "clang " TEXT(__clang_major__) "." TEXT(__clang_minor__) "." TEXT(__clang_patchlevel__)
#else
#define COMPILER "gcc " TEXT(__GNUC__) "." TEXT(__GNUC_MINOR__) "." TEXT(__GNUC_PATCHLEVEL__)
#endif
__attribute__((visibility("default"))) const char *const compiled_by = COMPILER;
__attribute__((visibility("default"))) const int64_t vector_bytes = VECTOR_BYTES;
