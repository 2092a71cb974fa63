// Sixteen bytes at a time, in the compiler's own vectors: shuffles that every CPU has.
#pragma once

#include <cstdint>

#include "compiler.h"

namespace kernels {

constexpr int LANES = 16;

namespace {

typedef uint8_t Bytes __attribute__((vector_size(LANES), aligned(1), may_alias));

// Three channels of 16 pixels -> the same interleaved.
ALWAYS_INLINE void interleave(const Bytes* rgb, Bytes* made) {
    const Bytes rg0 = SHUFFLE(rgb[0], rgb[1], 0, 16, 0, 1, 17, 0, 2, 18, 0, 3, 19, 0, 4, 20, 0, 5);
    const Bytes rg1 = SHUFFLE(rgb[0], rgb[1], 21, 0, 6, 22, 0, 7, 23, 0, 8, 24, 0, 9, 25, 0, 10, 26);
    const Bytes rg2 = SHUFFLE(rgb[0], rgb[1], 0, 11, 27, 0, 12, 28, 0, 13, 29, 0, 14, 30, 0, 15, 31, 0);
    made[0] = SHUFFLE(rg0, rgb[2], 0, 1, 16, 3, 4, 17, 6, 7, 18, 9, 10, 19, 12, 13, 20, 15);
    made[1] = SHUFFLE(rg1, rgb[2], 0, 21, 2, 3, 22, 5, 6, 23, 8, 9, 24, 11, 12, 25, 14, 15);
    made[2] = SHUFFLE(rg2, rgb[2], 26, 1, 2, 27, 4, 5, 28, 7, 8, 29, 10, 11, 30, 13, 14, 31);
}

// 16 pixels of three interleaved channels in the other order.
ALWAYS_INLINE void mirror(const Bytes* rgb, Bytes* made) {
    const Bytes a = rgb[0], b = rgb[1], c = rgb[2];
    const Bytes middle = SHUFFLE(b, c, 15, 16, 11, 12, 13, 8, 9, 10, 5, 6, 7, 2, 3, 4, 0, 0);
    made[0] = SHUFFLE(b, c, 29, 30, 31, 26, 27, 28, 23, 24, 25, 20, 21, 22, 17, 18, 19, 14);
    made[1] = SHUFFLE(middle, a, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 31, 15);
    made[2] = SHUFFLE(a, b, 17, 12, 13, 14, 9, 10, 11, 6, 7, 8, 3, 4, 5, 0, 1, 2);
}

}  // namespace
}  // namespace kernels
