// What the kernels share: parts of decoded photos, and the functions between which they travel.
//
//     jpeg.cpp, raw.cpp, blocks_decode.cpp: payload -> Picture       resize.cpp: Picture -> pixels or numbers of the batch
//
// kernels.cpp, jpeg_whole.cpp and blocks_encode.cpp have the functions that Python sees. Nothing here throws, and nothing
// reads or writes beyond what it was given, whatever a payload holds: a damaged one is a code other than GOOD.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "compiler.h"

namespace kernels {

// beton/kernels/__init__.py says what they mean. DECODE_WHOLE: nothing here can decode the payload, but Python may.
enum Code : int { GOOD = 0, NO_JPEG = 1, OTHER_SIZE = 2, DAMAGED = 3, NO_BLOCKS = 4, DECODE_WHOLE = 5 };

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

// What the weights of one axis lie in.
struct WeightSpace {
    std::vector<int32_t> numbers, starts;
    std::vector<float> floats, of_picks;
    std::vector<uint8_t> picks;
};

// Weights that weights.cpp keeps.
struct KeptWeights {
    virtual ~KeptWeights() = default;
};

// Memory that is used again for each photo. One for each thread.
struct Scratch {
    std::vector<uint8_t> bytes[4];  // jpeg.cpp, blocks_decode.cpp: the planes; [3]: what resize.cpp makes on the way
    WeightSpace weights[4];         // weights.cpp: of rows and columns, of brightness and colours
    std::vector<double> doubles;    // weights.cpp: what they are made from
    std::vector<std::unique_ptr<KeptWeights>> kept[4];  // weights.cpp: those of small photos
    std::unique_ptr<void, void (*)(void*)> tables{nullptr, nullptr};  // jpeg.cpp: Huffman tables and the like
    bool timed = false;               // kernels.cpp: whether the next are counted,
    int64_t nanoseconds[3] = {};      // spent on reading payloads, on decoding and on resizing
};

// A photo as a .beton holds it, of the height and width that the .beton says.
struct Payload {
    const uint8_t* data;
    size_t size;
    int64_t height, width;
};

// Decodes at least the pixels of `part` of a photo, at 1 / 2^shrink of its size or, if that is easier, as it is; returns
// a Code. Colour planes of fewer samples have a margin of one around the part (as far as the photo goes), so that they
// can be interpolated. What it makes lies in the scratch or in the payload.
using Decode = int (*)(const Payload& payload, Rect part, int shrink, Scratch& scratch, Picture& picture);

// Makes a storage mode known by its number in the .beton: `const Register raw(1, decode);` in the mode's own file.
struct Register {
    Register(uint8_t mode, Decode decode);
};

// Null for a mode that no file has registered.
Decode decoder_of(int64_t mode);

// jpeg.cpp, for jpeg_whole.cpp: all of a JPEG. DAMAGED also where decoders make different things of it.
int decode_jpeg_strictly(const Payload& payload, Scratch& scratch, Picture& picture);

// How a box of a photo becomes an image.
struct Crop {
    Rect box;                    // of the photo; pixels beside it have no weight
    int64_t rows, columns;       // the box is resized to so many
    int64_t top, left;           // the image is a window of the resized box that begins here;
    int64_t height, width;       // it has so many pixels, mirrored (reflect) where it goes beyond an edge
    int filter;                  // 0 bilinear, 1 bicubic (Pillow's, antialiased), 2 area
    bool mirror;                 // left-right, after all that
};

// Where the image goes: `pixels` (uint8) or `numbers` (float32, pixel * scale[c] + shift[c]), the other one null. Its rows
// are `row` pixels apart. `stream`: numbers go to memory past the caches (their address is a multiple of 64 bytes then).
struct Target {
    uint8_t* pixels;
    float* numbers;
    const float *scale, *shift;  // three each
    int64_t row;
    bool stream;
};

void resize(const Picture& picture, const Crop& crop, const Target& target, Scratch& scratch);

}  // namespace kernels
