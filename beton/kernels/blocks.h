// Photos as blocks (write_mode=blocks): a part of one is decoded by a few instructions for each pixel of it.
//
// A photo of H x W pixels becomes JPEG's YCbCr (full range BT.601): H x W luma samples and twice ceil(H/2) x
// ceil(W/2) colour samples, each the mean of 2 x 2 pixels. Every plane is cut into blocks 4 high and 8 wide; where
// one goes beyond the plane it repeats the edge. A block has a depth of 0 to 8 bits an index and takes 2 + 4 * depth
// bytes: its lowest value, the span from there to its highest, and 32 indices. The value of an index is
//
//     (256 * lowest + index * stride + 128) / 256 rounded down,  modulo 256
//     where stride = (span * FACTOR[depth] + 128) / 256 rounded down,  FACTOR[depth] = round(65536 / (2^depth - 1))
//
// which is `lowest` for index 0, `lowest + span` for the last index, and `lowest + index` where the span is the
// last index. A row of eight indices is the number sum(index[i] << (i * depth)) in `depth` bytes; four rows follow
// each other. All numbers are little-endian.
//
// Payload, for all planes together (luma, blue, red; in each the rows of blocks from top to bottom):
//     4 bytes for each row of blocks: where it begins in the payload
//     for each row of blocks: the depths, 4 bits each (first the low half of a byte), then its blocks
//     zeros up to blocks_size(), which is 15 bytes for each block, the depths and row starts, and 32 bytes that
//     let the decoder read ahead
//
// So the payload's size depends on the photo's size only, 0.75 byte a pixel, and a photo has 3.25 bits for an average
// index. The encoder gives them to the blocks where they gain most: flat blocks need few. Where all blocks have what
// they need the planes are stored without loss. benchmarks/block_formats.py compares this with other formats.
#pragma once

#include "kernels.h"

namespace kernels {
namespace {

constexpr int64_t HIGH = 4, WIDE = 8, SAMPLES = 32;  // of a block
constexpr int DEEPEST = 8;
constexpr int64_t BYTES = 15;   // for an average block
constexpr int64_t AHEAD = 32;   // bytes that the decoder may read beyond the last block
constexpr int FACTOR[16] = {0, 65536, 21845, 9362, 4369, 2114, 1040, 516, 257};

inline int last_index(int depth) { return (1 << depth) - 1; }
inline int stride_of(int span, int depth) { return (span * FACTOR[depth] + 128) >> 8; }
inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The blocks of a plane.
struct Grid {
    int64_t height, width, rows, columns;  // samples, blocks
    int64_t first_row;                     // in the table of row starts
    int64_t depths() const { return (columns + 1) / 2; }  // bytes of a row
};

struct Grids {
    Grid planes[3];
    int64_t rows = 0, blocks = 0, size = 0;
    Grids(int64_t height, int64_t width) {
        for (int i = 0; i < 3; ++i) {
            int64_t h = i ? (height + 1) / 2 : height, w = i ? (width + 1) / 2 : width;
            Grid& grid = planes[i] = {h, w, ceil_div(h, HIGH), ceil_div(w, WIDE), rows};
            rows += grid.rows;
            blocks += grid.rows * grid.columns;
            size += grid.rows * grid.depths();
        }
        size += 4 * rows + BYTES * blocks + AHEAD;
    }
};

}  // namespace
}  // namespace kernels
