// What resize.cpp tells the passes: passes.h is compiled once for each kind of CPU.
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
};

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
    uint8_t* square;              // 16 rows of a plane, transposed
    bool copy, mirror;            // nothing is resized: planes[0] is the image, perhaps to be mirrored
};

// Bytes of a row of the image with all its padding.
inline int64_t padded(int64_t count) { return (count + LANES - 1) / LANES * LANES; }

void passes_avx512(const Job& job, const Target& target);
void passes_avx2(const Job& job, const Target& target);
void passes_plain(const Job& job, const Target& target);

}  // namespace kernels
