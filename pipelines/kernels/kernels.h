// What the kernels share: parts of decoded photos, and the functions between which they travel.
//
//     jpeg.cpp, blocks_decode.cpp: payload -> Picture        resize.cpp: Picture -> pixels or numbers of the batch
//
// kernels.cpp has the functions that Python sees. Nothing here throws, and nothing reads or writes beyond
// what it was given, whatever a payload holds: a damaged one is a code other than GOOD.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

// The compiler makes one of these for each kind of CPU, and the loader of the library chooses.
// Every variant gives the same bits: the build forbids to fuse multiplications with additions.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#define FOR_EACH_CPU __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FOR_EACH_CPU
#endif

namespace kernels {

enum Code : int { GOOD = 0, NO_JPEG = 1, OTHER_SIZE = 2, DAMAGED = 3, NO_BLOCKS = 4 };

// A rectangle in pixels of the whole photo.
struct Rect {
    int64_t top, left, height, width;
};

// A part of one channel (or of three interleaved ones) of a photo.
//
// The channel as a whole has `full_height` x `full_width` samples; `pixels` points at the sample (top, left)
// of it, and height x width samples are there. Rows are `step` bytes apart. A sample of the channel covers
// tall x wide pixels of the photo: 1 x 1, or 2 x 2 for the colour of a 4:2:0 JPEG. Where photos are decoded
// at a half, a quarter or an eighth, `tall` and `wide` count pixels of that smaller photo.
struct Plane {
    const uint8_t* pixels;
    int64_t step, top, left, height, width, full_height, full_width;
    int tall, wide;
};

// A decoded part of a photo.
struct Picture {
    enum Kind { RGB, YCC, GRAY } kind;  // planes[0] interleaved; three planes, JPEG's YCbCr; one plane
    int shrink;                         // the planes are those of a photo of ceil(side / 2^shrink) pixels
    Plane planes[3];
};

// Memory that is used again for each photo. One for each thread.
struct Scratch {
    std::vector<uint8_t> bytes[4];    // jpeg.cpp, blocks_decode.cpp: the planes; [3]: what resize.cpp makes on the way
    std::vector<int32_t> numbers[4];  // resize.cpp: weights
    std::vector<float> floats[4];     // resize.cpp: weights
    void* decompressor = nullptr;     // jpeg.cpp's own
    ~Scratch();                       // in jpeg.cpp
};

// Decode at least the pixels of `part` of a JPEG that shall be height x width, at 1 / 2^shrink of its size.
//
// Baseline JPEGs of one channel, or of YCbCr with 4:4:4, 4:2:2, 4:4:0, 4:2:0 or 4:1:1 sampling, are decoded here,
// no more of them than is needed: inverse DCTs only of the blocks that the part touches, and where the file
// has restart markers only the segments that it touches. The colour planes have a margin of one sample around the
// part (as far as the photo goes), so that they can be interpolated. All other JPEGs (progressive, arithmetic, RGB,
// ...) go to libjpeg-turbo, whole, and become RGB with shrink 0.
int decode_jpeg(const uint8_t* data, size_t size, int64_t height, int64_t width, Rect part, int shrink,
                Scratch& scratch, Picture& picture);

// Decode at least the pixels of `part` (and the same margin of colour) of a photo of write_mode=blocks.
int decode_blocks(const uint8_t* data, size_t size, int64_t height, int64_t width, Rect part, Scratch& scratch,
                  Picture& picture);

// Bytes of a photo stored as blocks.
size_t blocks_size(int64_t height, int64_t width);

// Store RGB pixels (height x width x 3, interleaved, rows without gaps) as blocks_size(height, width) bytes.
void encode_blocks(const uint8_t* rgb, int64_t height, int64_t width, uint8_t* data);

// How a box of a photo becomes an image.
struct Cut {
    Rect box;                    // cut out; pixels beside it have no weight
    int64_t rows, columns;       // the box is resized to so many
    int64_t top, left;           // the image is a window of the resized box that begins here;
    int64_t height, width;       // it has so many pixels, mirrored (reflect) where it goes beyond an edge
    int filter;                  // 0 bilinear, 1 bicubic (Pillow's, antialiased), 2 area
    bool mirror;                 // left-right, after all that
};

// Where the image goes: `pixels` (uint8) or `numbers` (float32, pixel * scale[c] + shift[c]), the other one null.
struct Target {
    uint8_t* pixels;
    float* numbers;
    const float *scale, *shift;  // three each
    bool planar;                 // channel after channel instead of interleaved
};

void resize(const Picture& picture, const Cut& cut, const Target& target, Scratch& scratch);

}  // namespace kernels
