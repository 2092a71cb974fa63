// What resize.cpp asks weights.cpp, and tells the passes: passes.h is compiled once for each kind of CPU.
#pragma once

#include "bytes.h"
#include "kernels.h"

namespace kernels {

// How samples become pixels along one axis: pixel i is the sum of weights[i * stride + k] times the sample
// first[i] + k of the channel, for k below `taps`.
struct Weights {
    int32_t* first;
    float* weights;
    int64_t stride, taps;
    int64_t begin, end;  // all samples that have weight

    // Columns that are not shrunk: 16 numbers of the result are made of 16 bytes that lie together. For each 16 of them:
    // where these begin (in the whole channel), which of them each is made of, weights[tap][16]. Null where it is not so
    const int32_t* starts;
    const uint8_t* picks;
    const float* of_picks;
};

// One axis of a Crop.
struct Axis {
    double start, length;   // the box, in pixels of the photo (of the shrunken one, if it was decoded so)
    int64_t pixels;         // of that photo
    int64_t size;           // the box is resized to so many,
    int64_t window, count;  // of which the image shows `count` from `window` on
    bool mirror;
    int filter;
};

enum Filter { BILINEAR = 0, BICUBIC = 1, AREA = 2 };

// What the weights of one axis depend on: a channel has `samples` samples that cover `factor` pixels each, `prepared` pixels
// are worked out. Those beyond axis.count repeat the last one.
struct Question {
    Axis axis;
    int factor;
    bool triangle;
    int64_t samples, prepared;
    int channels;  // of columns, that lie side by side; 0 for rows

    bool operator==(const Question& other) const {
        const Axis &a = axis, &b = other.axis;
        return a.start == b.start && a.length == b.length && a.pixels == b.pixels && a.size == b.size &&
               a.window == b.window && a.count == b.count && a.mirror == b.mirror && a.filter == b.filter &&
               factor == other.factor && triangle == other.triangle && samples == other.samples &&
               prepared == other.prepared && channels == other.channels;
    }
};

// Answers in memory of the scratch, at one of four places. `pixels`: the answer for a factor of 1, if another one is asked.
void make_weights(const Question& asked, const Weights& pixels, Scratch& scratch, int place, Weights& made);

constexpr int64_t FEW_TAPS = 4;  // rows, and taps, for which there is room

// One image to make. The passes come in Pillow's order, for what lies between them is rounded to bytes.
struct Job {
    Picture::Kind kind;
    Plane planes[3];              // rows have at least 16 bytes
    Weights rows[2], columns[2];  // [0] of pixels, [1] of the colour's samples
    int64_t height, width;        // of the image
    bool rows_first;
    uint8_t* between[3];          // what the first pass makes: `step` bytes a row
    int64_t step[3];
    uint8_t* last[3];             // what the second pass makes: one row; or 16, when it is that over columns
    float* square;                // 16 rows of a plane, transposed (Kept in passes.h)
    bool copy, mirror;            // nothing is resized: planes[0] is the image, perhaps to be mirrored
    bool enlarge, clamp;          // columns[...].starts are there; sums may be less than 0 or more than 255
    float* ring[3];               // enlarge: the last FEW_TAPS rows of each plane, with their columns weighed
    uint8_t* line;                // enlarge: a row of a plane, and room behind it
};

// Bytes of a row of the image with all its padding.
inline int64_t padded(int64_t count) { return (count + LANES - 1) / LANES * LANES; }

template <class Value>
void grow(std::vector<Value>& space, int64_t size) {
    if (int64_t(space.size()) < size) space.resize(size);
}

void passes_avx512(const Job& job, const Target& target);
void passes_avx2(const Job& job, const Target& target);
void passes_plain(const Job& job, const Target& target);

}  // namespace kernels
