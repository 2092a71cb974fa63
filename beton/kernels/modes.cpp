// The storage modes by their numbers. Each registers itself as the library is loaded.
#include "kernels.h"

namespace kernels {
namespace {
Decode decoders[256];  // zeros before any constructor runs
}

Register::Register(uint8_t mode, Decode decode) { decoders[mode] = decode; }

Decode decoder_of(int64_t mode) { return mode >= 0 && mode < 256 ? decoders[mode] : nullptr; }

}  // namespace kernels
