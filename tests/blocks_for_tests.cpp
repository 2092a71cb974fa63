// The blocks for Python, without the rest of the kernels.
#include <cstring>

#include "../pipelines/kernels/kernels.h"

using namespace kernels;

Scratch::~Scratch() = default;

extern "C" {

int64_t size_of(int64_t height, int64_t width) { return int64_t(blocks_size(height, width)); }

void encode(const uint8_t* rgb, int64_t height, int64_t width, uint8_t* data) {
    encode_blocks(rgb, height, width, data);
}

void* open_scratch() { return new Scratch; }
void close_scratch(void* scratch) { delete static_cast<Scratch*>(scratch); }

// Decode; `fields` gets kind, shrink, then step, top, left, height, width, full_height, full_width, tall, wide and
// the address of the pixels for each of the three planes.
int decode(const uint8_t* data, int64_t size, int64_t height, int64_t width, const int64_t* part, void* scratch,
           int64_t* fields) {
    Picture picture;
    std::memset(&picture, 0, sizeof picture);
    int code = decode_blocks(data, size_t(size), height, width, {part[0], part[1], part[2], part[3]},
                             *static_cast<Scratch*>(scratch), picture);
    *fields++ = picture.kind;
    *fields++ = picture.shrink;
    for (const Plane& p : picture.planes) {
        int64_t values[] = {p.step,       p.top,  p.left, p.height,         p.width, p.full_height,
                            p.full_width, p.tall, p.wide, int64_t(p.pixels)};
        for (int64_t value : values) *fields++ = value;
    }
    return code;
}
}
