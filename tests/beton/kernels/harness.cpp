// The decoders and the encoder for ctypes: tests/support/kernels.py compiles this with their files.

#include "kernels.h"

using namespace kernels;

extern "C" {

uint64_t kernels_blocks_size(int64_t height, int64_t width);
void kernels_encode_blocks(const uint8_t* rgb, int64_t height, int64_t width, uint8_t* data);

int64_t size_of(int64_t height, int64_t width) { return int64_t(kernels_blocks_size(height, width)); }

void encode(const uint8_t* rgb, int64_t height, int64_t width, uint8_t* data) {
    kernels_encode_blocks(rgb, height, width, data);
}

Scratch* open_scratch() { return new Scratch; }

// `fields` gets kind and shrink, then of each of three planes step, top, left, height, width, full_height, full_width,
// tall, wide and the address of the pixels.
int decode(int mode, const uint8_t* data, int64_t size, int64_t height, int64_t width, const int64_t* part, int shrink,
           Scratch* scratch, int64_t* fields) {
    Picture picture = {};
    Rect rect = {part[0], part[1], part[2], part[3]};
    int code = decoder_of(mode)({data, size_t(size), height, width}, rect, shrink, *scratch, picture);
    *fields++ = picture.kind;
    *fields++ = picture.shrink;
    for (const Plane& p : picture.planes)
        for (int64_t value : {p.step, p.top, p.left, p.height, p.width, p.full_height, p.full_width, int64_t(p.tall),
                              int64_t(p.wide), int64_t(p.pixels)})
            *fields++ = value;
    return code;
}

}  // extern "C"
