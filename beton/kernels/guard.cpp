// Reading a part of a mapped file that is not there any more ends the process (SIGBUS): the file was truncated, or the
// disk fails. Within maps that are guarded such a part reads as zeros instead, and it is remembered that it does.
#include "compiler.h"

#include <cstdint>

#ifdef _WIN32  // a mapped file cannot be truncated there

namespace {
int32_t* guard(const uint8_t*, uint64_t) { return nullptr; }
void unguard(int32_t*) {}
}  // namespace

#else

#include <cerrno>
#include <csignal>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>

namespace {

constexpr int MOST = 1024;
constexpr uintptr_t FREE = 0, TAKEN = 1;  // as `end`: nothing lies below these

struct Guarded {
    std::atomic<int32_t> torn;
    std::atomic<uintptr_t> start, end;
};

Guarded maps[MOST];
uintptr_t page;
struct sigaction before;

// Only what may be called within a signal's handler.
bool mend(uintptr_t address) {
    for (Guarded& map : maps) {
        if (address < map.start || address >= map.end) continue;
        void* torn = (void*)(address / page * page);
        map.torn = 1;
        return mmap(torn, page, PROT_READ, MAP_PRIVATE | MAP_ANON | MAP_FIXED, -1, 0) != MAP_FAILED;
    }
    return false;
}

void on_bus_error(int number, siginfo_t* about, void* context) {
    int error = errno;
    bool is_fault = about->si_code > 0;  // else another process has sent it
    if (is_fault && mend((uintptr_t)about->si_addr)) {
        errno = error;
        return;
    }
    if (before.sa_flags & SA_SIGINFO) {
        before.sa_sigaction(number, about, context);
    } else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) {
        before.sa_handler(number);
    } else {
        sigaction(SIGBUS, &before, nullptr);
        raise(number);
    }
    errno = error;
}

bool install() {
    page = (uintptr_t)sysconf(_SC_PAGESIZE);
    struct sigaction ours {};
    ours.sa_sigaction = on_bus_error;
    ours.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&ours.sa_mask);
    return sigaction(SIGBUS, nullptr, &before) == 0 && sigaction(SIGBUS, &ours, nullptr) == 0;
}

int32_t* guard(const uint8_t* start, uint64_t size) {
    static const bool installed = install();
    for (Guarded& map : maps) {
        uintptr_t expected = FREE;
        if (!installed || !map.end.compare_exchange_strong(expected, TAKEN)) continue;
        map.torn = 0;
        map.start = (uintptr_t)start;
        map.end = (uintptr_t)start + size;
        return (int32_t*)&map.torn;
    }
    return nullptr;
}

void unguard(int32_t* torn) { ((Guarded*)torn)->end = FREE; }

}  // namespace

#endif

// Guard `size` bytes from `start` on. The result becomes 1 when a part of them could not be read; null: too many are
// guarded.
EXPORTED int32_t* kernels_guard(const uint8_t* start, uint64_t size) { return guard(start, size); }

// To be called before they are unmapped, with what kernels_guard gave.
EXPORTED void kernels_unguard(int32_t* torn) { unguard(torn); }
