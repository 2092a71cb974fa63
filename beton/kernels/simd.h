// Sixteen numbers at a time. Included once for each kind of CPU, compiled with that CPU's flags.
//
// Every kind gives the same bits: the operations are those of IEEE 754, one by one, in the same order.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "bytes.h"
#include "resize.h"

namespace kernels {
namespace {

#if defined(__AVX512BW__) && defined(__AVX512VL__)

struct Floats {
    __m512 v;
};
ALWAYS_INLINE Floats load(const float* from) { return {_mm512_loadu_ps(from)}; }
ALWAYS_INLINE Floats load_bytes(const uint8_t* from) {
    return {_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)from)))};
}
ALWAYS_INLINE void store(float* to, Floats a) { _mm512_storeu_ps(to, a.v); }
// Past the caches, to an address that is a multiple of 64
ALWAYS_INLINE void stream(float* to, Floats a) { _mm512_stream_ps(to, a.v); }
ALWAYS_INLINE Floats splat(float value) { return {_mm512_set1_ps(value)}; }
ALWAYS_INLINE Floats operator+(Floats a, Floats b) { return {_mm512_add_ps(a.v, b.v)}; }
ALWAYS_INLINE Floats operator*(Floats a, Floats b) { return {_mm512_mul_ps(a.v, b.v)}; }
// To the nearest whole number, halves upwards, within 0 ... 255
ALWAYS_INLINE void store_rounded(uint8_t* to, Floats a) {
    const __m512 up = _mm512_max_ps(_mm512_add_ps(a.v, _mm512_set1_ps(0.5f)), _mm512_setzero_ps());
    _mm_storeu_si128((__m128i*)to, _mm512_cvtusepi32_epi8(_mm512_cvttps_epi32(up)));
}

// The same numbers, not stored. Without CLAMP they must be within 0 ... 255 already
template <bool CLAMP>
ALWAYS_INLINE Floats rounded(Floats a) {
    const __m512 whole = _mm512_roundscale_ps(_mm512_add_ps(a.v, _mm512_set1_ps(0.5f)), 3 | _MM_FROUND_NO_EXC);
    if (!CLAMP) return {whole};
    return {_mm512_min_ps(_mm512_max_ps(whole, _mm512_setzero_ps()), _mm512_set1_ps(255))};
}
ALWAYS_INLINE Floats floats_of(__m128i bytes) { return {_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes))}; }
ALWAYS_INLINE Floats load_picked(const uint8_t* from, const uint8_t* places) {
    const __m128i all = _mm_loadu_si128((const __m128i*)from), pick = _mm_loadu_si128((const __m128i*)places);
    return floats_of(_mm_shuffle_epi8(all, pick));
}
ALWAYS_INLINE Floats floats_of(const Bytes& bytes) { return floats_of((__m128i)bytes); }
// Which of 16 bytes each number is made of: four windows of a row make four numbers each
constexpr bool HAS_PICKER = true;
typedef __m512i Picker;
ALWAYS_INLINE Picker picker(const uint8_t* picks) {
    // Masked, since GCC 12 takes the other one for an oversight
    const __m512i wide = _mm512_maskz_cvtepu8_epi32(0xFFFF, _mm_loadu_si128((const __m128i*)picks));
    return _mm512_or_si512(wide, _mm512_set1_epi32(int(0x80808000)));
}
ALWAYS_INLINE Floats pick(const uint8_t* row, const int64_t* windows, Picker picker) {
    auto window = [&](int i) { return _mm_loadu_si128((const __m128i*)(row + windows[i])); };
    __m512i all = _mm512_inserti32x4(_mm512_castsi128_si512(window(0)), window(1), 1);
    all = _mm512_inserti32x4(_mm512_inserti32x4(all, window(2), 2), window(3), 3);
    return {_mm512_cvtepi32_ps(_mm512_shuffle_epi8(all, picker))};
}
// Three channels of 16 pixels -> the same interleaved
ALWAYS_INLINE void interleave(const Floats* rgb, Floats* made) {
    const __m512i rg[3] = {_mm512_setr_epi32(0, 16, 0, 1, 17, 0, 2, 18, 0, 3, 19, 0, 4, 20, 0, 5),
                           _mm512_setr_epi32(21, 0, 6, 22, 0, 7, 23, 0, 8, 24, 0, 9, 25, 0, 10, 26),
                           _mm512_setr_epi32(0, 11, 27, 0, 12, 28, 0, 13, 29, 0, 14, 30, 0, 15, 31, 0)};
    const __m512i b[3] = {_mm512_setr_epi32(0, 1, 16, 3, 4, 17, 6, 7, 18, 9, 10, 19, 12, 13, 20, 15),
                          _mm512_setr_epi32(0, 21, 2, 3, 22, 5, 6, 23, 8, 9, 24, 11, 12, 25, 14, 15),
                          _mm512_setr_epi32(26, 1, 2, 27, 4, 5, 28, 7, 8, 29, 10, 11, 30, 13, 14, 31)};
    for (int i = 0; i < 3; i++) {
        made[i].v = _mm512_permutex2var_ps(_mm512_permutex2var_ps(rgb[0].v, rg[i], rgb[1].v), b[i], rgb[2].v);
    }
}

#elif defined(__AVX2__)

struct Floats {
    __m256 v, w;
};
ALWAYS_INLINE Floats load(const float* from) { return {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)}; }
ALWAYS_INLINE Floats load_bytes(const uint8_t* from) {
    return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)from))),
            _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)(from + 8))))};
}
ALWAYS_INLINE void store(float* to, Floats a) { _mm256_storeu_ps(to, a.v), _mm256_storeu_ps(to + 8, a.w); }
ALWAYS_INLINE void stream(float* to, Floats a) { _mm256_stream_ps(to, a.v), _mm256_stream_ps(to + 8, a.w); }
ALWAYS_INLINE Floats splat(float value) { return {_mm256_set1_ps(value), _mm256_set1_ps(value)}; }
ALWAYS_INLINE Floats operator+(Floats a, Floats b) { return {_mm256_add_ps(a.v, b.v), _mm256_add_ps(a.w, b.w)}; }
ALWAYS_INLINE Floats operator*(Floats a, Floats b) { return {_mm256_mul_ps(a.v, b.v), _mm256_mul_ps(a.w, b.w)}; }
ALWAYS_INLINE __m256i whole(__m256 v) { return _mm256_cvttps_epi32(_mm256_add_ps(v, _mm256_set1_ps(0.5f))); }
ALWAYS_INLINE void store_rounded(uint8_t* to, Floats a) {
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(whole(a.v), whole(a.w)), 0xD8);
    const __m128i low = _mm256_castsi256_si128(words), high = _mm256_extracti128_si256(words, 1);
    _mm_storeu_si128((__m128i*)to, _mm_packus_epi16(low, high));
}
template <bool CLAMP>
ALWAYS_INLINE __m256 rounded(__m256 v) {
    const __m256 whole = _mm256_round_ps(_mm256_add_ps(v, _mm256_set1_ps(0.5f)), _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC);
    return CLAMP ? _mm256_min_ps(_mm256_max_ps(whole, _mm256_setzero_ps()), _mm256_set1_ps(255)) : whole;
}
template <bool CLAMP>
ALWAYS_INLINE Floats rounded(Floats a) {
    return {rounded<CLAMP>(a.v), rounded<CLAMP>(a.w)};
}
ALWAYS_INLINE Floats floats_of(__m128i bytes) {
    return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes)),
            _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8)))};
}
ALWAYS_INLINE Floats load_picked(const uint8_t* from, const uint8_t* places) {
    const __m128i all = _mm_loadu_si128((const __m128i*)from), pick = _mm_loadu_si128((const __m128i*)places);
    return floats_of(_mm_shuffle_epi8(all, pick));
}
ALWAYS_INLINE Floats floats_of(const Bytes& bytes) { return floats_of((__m128i)bytes); }
constexpr bool HAS_PICKER = true;
struct Picker {
    __m256i v, w;
};
ALWAYS_INLINE Picker picker(const uint8_t* picks) {
    const __m256i nothing = _mm256_set1_epi32(int(0x80808000));
    return {_mm256_or_si256(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)picks)), nothing),
            _mm256_or_si256(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)(picks + 8))), nothing)};
}
ALWAYS_INLINE Floats pick(const uint8_t* row, const int64_t* windows, const Picker& picker) {
    auto window = [&](int i) { return _mm_loadu_si128((const __m128i*)(row + windows[i])); };
    const __m256i v = _mm256_inserti128_si256(_mm256_castsi128_si256(window(0)), window(1), 1);
    const __m256i w = _mm256_inserti128_si256(_mm256_castsi128_si256(window(2)), window(3), 1);
    return {_mm256_cvtepi32_ps(_mm256_shuffle_epi8(v, picker.v)), _mm256_cvtepi32_ps(_mm256_shuffle_epi8(w, picker.w))};
}
// Of 8 pixels: in each half of a vector first, then halves change places
ALWAYS_INLINE void interleave(__m256 red, __m256 green, __m256 blue, __m256& a, __m256& b, __m256& c) {
    red = _mm256_permute_ps(red, _MM_SHUFFLE(1, 2, 3, 0));
    green = _mm256_permute_ps(green, _MM_SHUFFLE(2, 3, 0, 1));
    blue = _mm256_permute_ps(blue, _MM_SHUFFLE(3, 0, 1, 2));
    const __m256 first = _mm256_blend_ps(_mm256_blend_ps(red, green, 0x22), blue, 0x44);
    const __m256 second = _mm256_blend_ps(_mm256_blend_ps(green, blue, 0x22), red, 0x44);
    const __m256 third = _mm256_blend_ps(_mm256_blend_ps(blue, red, 0x22), green, 0x44);
    a = _mm256_insertf128_ps(first, _mm256_castps256_ps128(second), 1);
    b = _mm256_blend_ps(third, first, 0xF0);
    c = _mm256_permute2f128_ps(second, third, 0x31);
}
ALWAYS_INLINE void interleave(const Floats* rgb, Floats* made) {
    interleave(rgb[0].v, rgb[1].v, rgb[2].v, made[0].v, made[0].w, made[1].v);
    interleave(rgb[0].w, rgb[1].w, rgb[2].w, made[1].w, made[2].v, made[2].w);
}

#else

struct Floats {
    float v[LANES];
};
ALWAYS_INLINE Floats load(const float* from) {
    Floats made;
    std::memcpy(made.v, from, sizeof made.v);
    return made;
}
ALWAYS_INLINE Floats load_bytes(const uint8_t* from) {
    Floats made;
    for (int i = 0; i < LANES; i++) made.v[i] = from[i];
    return made;
}
ALWAYS_INLINE void store(float* to, Floats a) { std::memcpy(to, a.v, sizeof a.v); }
ALWAYS_INLINE void stream(float* to, Floats a) { store(to, a); }
ALWAYS_INLINE Floats splat(float value) {
    Floats made;
    for (int i = 0; i < LANES; i++) made.v[i] = value;
    return made;
}
ALWAYS_INLINE Floats operator+(Floats a, Floats b) {
    for (int i = 0; i < LANES; i++) a.v[i] += b.v[i];
    return a;
}
ALWAYS_INLINE Floats operator*(Floats a, Floats b) {
    for (int i = 0; i < LANES; i++) a.v[i] *= b.v[i];
    return a;
}
ALWAYS_INLINE void store_rounded(uint8_t* to, Floats a) {
    for (int i = 0; i < LANES; i++) {
        const float up = a.v[i] + 0.5f;
        to[i] = uint8_t(up < 0 ? 0 : up > 255 ? 255 : up);
    }
}
template <bool CLAMP>
ALWAYS_INLINE Floats rounded(Floats a) {
    uint8_t bytes[LANES];
    store_rounded(bytes, a);
    return load_bytes(bytes);
}
ALWAYS_INLINE Floats load_picked(const uint8_t* from, const uint8_t* places) {
    Floats made;
    for (int i = 0; i < LANES; i++) made.v[i] = from[places[i]];
    return made;
}
ALWAYS_INLINE Floats floats_of(const Bytes& bytes) { return load_bytes((const uint8_t*)&bytes); }
constexpr bool HAS_PICKER = false;  // no gain without instructions for it
struct Picker {};
ALWAYS_INLINE Picker picker(const uint8_t*) { return {}; }
ALWAYS_INLINE Floats pick(const uint8_t*, const int64_t*, Picker) { return {}; }
void interleave(const Floats* rgb, Floats* made) {
    for (int i = 0; i < 3 * LANES; i++) made[i / LANES].v[i % LANES] = rgb[i % 3].v[i / 3];
}

#endif

// 16 x 16 bytes, in place, in four rounds of interleaving halves.
ALWAYS_INLINE void transpose(Bytes* square) {
    for (int round = 0; round < 4; round++) {
        Bytes made[LANES];
        for (int i = 0; i < LANES / 2; i++) {
            const Bytes one = square[i], other = square[i + LANES / 2];
            made[2 * i] = SHUFFLE(one, other, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            made[2 * i + 1] = SHUFFLE(one, other, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
        }
        for (int i = 0; i < LANES; i++) square[i] = made[i];
    }
}

}  // namespace
}  // namespace kernels
