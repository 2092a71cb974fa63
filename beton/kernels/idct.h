// The inverse DCT of JPEG: integers, the same bits as libjpeg's "islow" (and its reduced sizes) on every CPU.
// Only jpeg.cpp includes this.
#pragma once

#include <cstdint>
#include <cstring>

#include "compiler.h"
#include "huffman.h"
#include "kernels.h"

#if defined(CHOOSE_BY_CPU)
#include <immintrin.h>
#define WITH_AVX2
#endif

namespace kernels {
namespace {

// A block that shall become side x side samples at `to`, in rows `step` apart.
struct Pending {
    const int16_t* quant;  // in the order of the coefficients, modulo 2^16
    uint8_t* to;
    int64_t step;
    int side;
};

inline int clamp16(int value) { return value < -32768 ? -32768 : value > 32767 ? 32767 : value; }
inline uint8_t clamp8(int value) { return static_cast<uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value); }

// The sums of the passes as matrices, times 2^13. Even rows: of (0, 4) and of (2, 6). Odd rows: of (7, 1) and (5, 3).
const int16_t EVEN[4][2] = {{8192, 8192}, {8192, -8192}, {10703, 4433}, {4433, -10704}};
const int16_t ODD[4][4] = {{2260, 11363, 6437, 9633},
                           {-6436, 9633, -11362, -2259},
                           {9633, 6437, 2261, -11362},
                           {-11363, 2260, 9633, -6436}};

// One pass over 8 lanes: from[16 pair + 2 lane + half] to sums[result][lane], not yet scaled.
// Cannot overflow: 2^15 times the coefficients of any result is less than 2^31 by more than `round`.
inline void pass8(const int16_t* from, int32_t sums[8][8], int32_t round) {
    for (int i = 0; i < 8; ++i) {
        const int16_t* x = from + 2 * i;
        int32_t both[4];
        for (int j = 0; j < 4; ++j) both[j] = x[8 * (j & 2)] * EVEN[j][0] + x[8 * (j & 2) + 1] * EVEN[j][1];
        const int32_t plus = both[0] + round, minus = both[1] + round;
        const int32_t even[4] = {plus + both[2], minus + both[3], minus - both[3], plus - both[2]};
        for (int j = 0; j < 4; ++j) {
            int32_t odd = x[32] * ODD[j][0] + x[33] * ODD[j][1] + x[48] * ODD[j][2] + x[49] * ODD[j][3];
            sums[j][i] = even[j] + odd;
            sums[7 - j][i] = even[j] - odd;
        }
    }
}

// The results of a pass to int16, as the next pass wants them.
template <int ROWS>
inline void turn(const int32_t sums[8][8], int shift, int16_t* to) {
    for (int row = 0; row < ROWS; ++row)
        for (int i = 0; i < 8; ++i)
            to[16 * (i >> 1) + 2 * row + (i & 1)] = static_cast<int16_t>(clamp16(sums[row][i] >> shift));
}

inline void inverse8(const int16_t* block, const Pending& job) {
    int16_t between[64];
    int32_t sums[8][8];
    pass8(block, sums, 1 << 10);
    turn<8>(sums, 11, between);
    pass8(between, sums, (1 << 17) + (128 << 18));
    for (int row = 0; row < 8; ++row)
        for (int i = 0; i < 8; ++i) job.to[row * job.step + i] = clamp8(sums[i][row] >> 18);
}

// The reduced sizes 4 and 2 give the means of neighbours, in fewer sums. The even part: of rows 0 and 2, 6 (size 4).
// The odd parts of (7, 1) and (5, 3): of the inner and of the outer results (size 4), and for size 2.
const int16_t MEAN_0[2] = {16384, 0}, MEAN_2[2] = {15137, -6270};
const int16_t MEAN_INNER[4] = {-1730, 8697, 11893, -17799}, MEAN_OUTER[4] = {-4176, 20995, -4926, 7373};
const int16_t MEAN_HALF[4] = {-5906, 29692, 6967, -10426};

// A pass of a reduced size. Modulo 2^32: absurd coefficients may overflow.
template <int SIDE>
inline void pass_reduced(const int16_t* from, int32_t sums[8][8], uint32_t round) {
    for (int i = 0; i < 8; ++i) {
        const int16_t* x = from + 2 * i;
        auto two = [x](int at, const int16_t* by) { return static_cast<uint32_t>(x[at] * by[0] + x[at + 1] * by[1]); };
        auto odd = [two](const int16_t* by) { return two(32, by) + two(48, by + 2); };
        uint32_t zero = two(0, MEAN_0);
        if (SIDE == 2) {
            uint32_t even = 2 * zero + round, half = odd(MEAN_HALF);
            sums[0][i] = static_cast<int32_t>(even + half);
            sums[1][i] = static_cast<int32_t>(even - half);
        } else {
            uint32_t plus = zero + round + two(16, MEAN_2), minus = zero + round - two(16, MEAN_2);
            uint32_t inner = odd(MEAN_INNER), outer = odd(MEAN_OUTER);
            sums[0][i] = static_cast<int32_t>(plus + outer);
            sums[1][i] = static_cast<int32_t>(minus + inner);
            sums[2][i] = static_cast<int32_t>(minus - inner);
            sums[3][i] = static_cast<int32_t>(plus - outer);
        }
    }
}

template <int SIDE>
inline void inverse_reduced(const int16_t* block, const Pending& job) {
    int16_t between[64] = {};
    int32_t sums[8][8];
    constexpr int shift = SIDE == 4 ? 12 : 13;
    pass_reduced<SIDE>(block, sums, 1u << (shift - 1));
    turn<SIDE>(sums, shift, between);
    pass_reduced<SIDE>(between, sums, (1u << (shift + 6)) + (128u << (shift + 7)));
    for (int row = 0; row < SIDE; ++row)
        for (int i = 0; i < SIDE; ++i) job.to[row * job.step + i] = clamp8(sums[i][row] >> (shift + 7));
}

// The inverse DCTs of `count` blocks of 64 coefficients, which become zeros.
FOR_EACH_CPU void inverse_plain(int16_t* blocks, const Pending* jobs, int count) {
    for (int i = 0; i < count; ++i) {
        int16_t block[64];
        for (int j = 0; j < 64; ++j)
            block[j] = static_cast<int16_t>(static_cast<uint16_t>(blocks[64 * i + j]) * 1u *
                                            static_cast<uint16_t>(jobs[i].quant[j]));
        std::memset(blocks + 64 * i, 0, 128);
        if (jobs[i].side == 8) inverse8(block, jobs[i]);
        if (jobs[i].side == 4) inverse_reduced<4>(block, jobs[i]);
        if (jobs[i].side == 2) inverse_reduced<2>(block, jobs[i]);
    }
}

#ifdef WITH_AVX2
#define FOR_AVX2 __attribute__((target("avx2")))

// The sums of pairs times two factors.
FOR_AVX2 ALWAYS_INLINE __m256i times_avx2(__m256i pairs, const int16_t* factors) {
    int32_t both;
    std::memcpy(&both, factors, 4);
    return _mm256_madd_epi16(pairs, _mm256_set1_epi32(both));
}

// pass8 in registers.
FOR_AVX2 ALWAYS_INLINE void pass_avx2(const __m256i x[4], __m256i sums[8], int32_t round) {
    __m256i zero = times_avx2(x[0], EVEN[0]), four = times_avx2(x[0], EVEN[1]);
    __m256i far = times_avx2(x[1], EVEN[2]), near = times_avx2(x[1], EVEN[3]);
    zero = _mm256_add_epi32(zero, _mm256_set1_epi32(round));
    four = _mm256_add_epi32(four, _mm256_set1_epi32(round));
    const __m256i even[4] = {_mm256_add_epi32(zero, far), _mm256_add_epi32(four, near), _mm256_sub_epi32(four, near),
                             _mm256_sub_epi32(zero, far)};
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
        __m256i odd = _mm256_add_epi32(times_avx2(x[2], ODD[j]), times_avx2(x[3], ODD[j] + 2));
        sums[j] = _mm256_add_epi32(even[j], odd);
        sums[7 - j] = _mm256_sub_epi32(even[j], odd);
    }
}

// The results of a pass to int16: of lanes 0-3 two rows in the lower half, of lanes 4-7 in the upper half.
FOR_AVX2 ALWAYS_INLINE void pack_avx2(const __m256i sums[8], int shift, __m256i packed[4]) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j)
        packed[j] =
            _mm256_packs_epi32(_mm256_srai_epi32(sums[2 * j], shift), _mm256_srai_epi32(sums[2 * j + 1], shift));
}

// Every other pair of lanes of four rows, from the first or from the second one.
template <int CHOICE>
FOR_AVX2 ALWAYS_INLINE __m256i pairs_avx2(__m256i one, __m256i two) {
    return _mm256_castps_si256(_mm256_shuffle_ps(_mm256_castsi256_ps(one), _mm256_castsi256_ps(two), CHOICE));
}

// Between bytes in columns and in rows, four by four.
FOR_AVX2 ALWAYS_INLINE __m256i transpose_avx2(__m256i bytes) {
    return _mm256_shuffle_epi8(bytes, _mm256_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15,  //
                                                       0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
}

FOR_AVX2 ALWAYS_INLINE void inverse8_avx2(__m256i x[4], const Pending& job) {
    __m256i sums[8], packed[4];
    pass_avx2(x, sums, 1 << 10);
    pack_avx2(sums, 11, packed);
    __m256i upper = pairs_avx2<0x88>(packed[0], packed[1]), lower = pairs_avx2<0x88>(packed[2], packed[3]);
    x[0] = _mm256_permute2x128_si256(upper, lower, 0x20);
    x[2] = _mm256_permute2x128_si256(upper, lower, 0x31);
    upper = pairs_avx2<0xdd>(packed[0], packed[1]), lower = pairs_avx2<0xdd>(packed[2], packed[3]);
    x[1] = _mm256_permute2x128_si256(upper, lower, 0x20);
    x[3] = _mm256_permute2x128_si256(upper, lower, 0x31);
    pass_avx2(x, sums, (1 << 17) + (128 << 18));
    pack_avx2(sums, 18, packed);
    __m256i left = transpose_avx2(_mm256_packus_epi16(packed[0], packed[1]));
    __m256i right = transpose_avx2(_mm256_packus_epi16(packed[2], packed[3]));
    // Rows 0, 1 and 4, 5; rows 2, 3 and 6, 7
    __m256i rows[2] = {_mm256_unpacklo_epi32(left, right), _mm256_unpackhi_epi32(left, right)};
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
        __m128i two = j < 2 ? _mm256_castsi256_si128(rows[j]) : _mm256_extracti128_si256(rows[j - 2], 1);
        uint8_t* to = job.to + 2 * j * job.step;
        _mm_storel_epi64(reinterpret_cast<__m128i*>(to), two);
        _mm_storel_epi64(reinterpret_cast<__m128i*>(to + job.step), _mm_unpackhi_epi64(two, two));
    }
}

// pass_reduced in registers.
template <int SIDE>
FOR_AVX2 ALWAYS_INLINE void pass_reduced_avx2(const __m256i x[4], __m256i sums[4], int32_t round) {
    __m256i zero = times_avx2(x[0], MEAN_0);
    if (SIDE == 2) zero = _mm256_slli_epi32(zero, 1);
    zero = _mm256_add_epi32(zero, _mm256_set1_epi32(round));
    if (SIDE == 2) {
        __m256i half = _mm256_add_epi32(times_avx2(x[2], MEAN_HALF), times_avx2(x[3], MEAN_HALF + 2));
        sums[0] = sums[2] = _mm256_add_epi32(zero, half);
        sums[1] = sums[3] = _mm256_sub_epi32(zero, half);
    } else {
        __m256i two = times_avx2(x[1], MEAN_2);
        __m256i plus = _mm256_add_epi32(zero, two), minus = _mm256_sub_epi32(zero, two);
        __m256i inner = _mm256_add_epi32(times_avx2(x[2], MEAN_INNER), times_avx2(x[3], MEAN_INNER + 2));
        __m256i outer = _mm256_add_epi32(times_avx2(x[2], MEAN_OUTER), times_avx2(x[3], MEAN_OUTER + 2));
        sums[0] = _mm256_add_epi32(plus, outer);
        sums[1] = _mm256_add_epi32(minus, inner);
        sums[2] = _mm256_sub_epi32(minus, inner);
        sums[3] = _mm256_sub_epi32(plus, outer);
    }
}

template <int SIDE>
FOR_AVX2 ALWAYS_INLINE void inverse_reduced_avx2(__m256i x[4], const Pending& job) {
    constexpr int shift = SIDE == 4 ? 12 : 13;
    __m256i sums[4];
    pass_reduced_avx2<SIDE>(x, sums, 1 << (shift - 1));
    __m256i one = _mm256_packs_epi32(_mm256_srai_epi32(sums[0], shift), _mm256_srai_epi32(sums[1], shift));
    __m256i two = _mm256_packs_epi32(_mm256_srai_epi32(sums[2], shift), _mm256_srai_epi32(sums[3], shift));
    // Only the lower halves matter from here on
    x[0] = pairs_avx2<0x88>(one, two);
    x[1] = pairs_avx2<0xdd>(one, two);
    x[2] = _mm256_permute2x128_si256(x[0], x[0], 0x11);
    x[3] = _mm256_permute2x128_si256(x[1], x[1], 0x11);
    pass_reduced_avx2<SIDE>(x, sums, (1 << (shift + 6)) + (128 << (shift + 7)));
    one = _mm256_packs_epi32(_mm256_srai_epi32(sums[0], shift + 7), _mm256_srai_epi32(sums[1], shift + 7));
    two = _mm256_packs_epi32(_mm256_srai_epi32(sums[2], shift + 7), _mm256_srai_epi32(sums[3], shift + 7));
    uint8_t rows[16];
    _mm_storeu_si128(reinterpret_cast<__m128i*>(rows),
                     _mm256_castsi256_si128(transpose_avx2(_mm256_packus_epi16(one, two))));
    for (int row = 0; row < SIDE; ++row) std::memcpy(job.to + row * job.step, rows + 4 * row, SIDE);
}

FOR_AVX2 inline void inverse_avx2(int16_t* blocks, const Pending* jobs, int count) {
    for (int i = 0; i < count; ++i) {
        __m256i x[4];
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) {
            auto from = reinterpret_cast<__m256i*>(blocks + 64 * i + 16 * j);
            auto quant = reinterpret_cast<const __m256i*>(jobs[i].quant + 16 * j);
            x[j] = _mm256_mullo_epi16(_mm256_loadu_si256(from), _mm256_loadu_si256(quant));
            _mm256_storeu_si256(from, _mm256_setzero_si256());
        }
        if (jobs[i].side == 8) inverse8_avx2(x, jobs[i]);
        if (jobs[i].side == 4) inverse_reduced_avx2<4>(x, jobs[i]);
        if (jobs[i].side == 2) inverse_reduced_avx2<2>(x, jobs[i]);
    }
}
#endif

inline void inverse(int16_t* blocks, const Pending* jobs, int count) {
#ifdef WITH_AVX2
    static const bool avx2 = __builtin_cpu_supports("avx2");
    if (avx2) return inverse_avx2(blocks, jobs, count);
#endif
    inverse_plain(blocks, jobs, count);
}

}  // namespace
}  // namespace kernels
