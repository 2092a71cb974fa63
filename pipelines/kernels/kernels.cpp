// What Python and the JIT pipeline call, by name.
#include <algorithm>
#include <cmath>

#include "kernels.h"

using namespace kernels;

namespace {

enum Mode { JPEG = 0, RAW = 1, BLOCKS = 2 };  // beton.py

Picture raw_picture(const uint8_t* data, int64_t height, int64_t width) {
    return {Picture::RGB, 0, {{data, 3 * width, 0, 0, height, width, height, width, 1, 1}}};
}

// Decoded at a half (1), a quarter (2), ... when the image is so much smaller that nothing is lost by it.
int shrink_of(const Cut& cut) {
    const int64_t ratio = std::min(cut.box.height / cut.rows, cut.box.width / cut.columns);
    return ratio >= 64 ? 3 : ratio >= 32 ? 2 : ratio >= 16 ? 1 : 0;
}

// The pixels of the box that pixels first ... last of `size` are made of, widely reckoned.
void needed(int64_t& start, int64_t& length, int64_t size, int64_t window, int64_t count) {
    if (window < 0 || window + count > size) return;
    const double scale = double(length) / size, reach = 2 * std::max(scale, 1.0) + 1;
    const int64_t low = std::max<int64_t>(0, int64_t(window * scale - reach));
    const int64_t high = std::min<int64_t>(length, int64_t((window + count) * scale + reach) + 1);
    start += low, length = high - low;
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

void* kernels_open() { return new Scratch; }

void kernels_close(void* scratch) { delete (Scratch*)scratch; }

// One photo -> one image. `box` is four numbers, `window` rows, columns, top, left, filter (pipelines/stages.py).
int kernels_cut(void* scratch, const uint8_t* data, uint64_t size, int64_t mode, int64_t height, int64_t width,
                const int64_t* box, const int64_t* window, int64_t mirror, int64_t image_height, int64_t image_width,
                uint8_t* pixels, float* numbers, const float* scale_shift, int64_t planar) {
    Scratch& own = *(Scratch*)scratch;
    const Cut cut = {{box[0], box[1], box[2], box[3]}, window[0], window[1], window[2], window[3],
                     image_height, image_width, int(window[4]), mirror != 0};
    Rect part = cut.box;
    needed(part.top, part.height, cut.rows, cut.top, cut.height);
    needed(part.left, part.width, cut.columns, cut.left, cut.width);
    Picture picture;
    int code = GOOD;
    if (mode == RAW) {
        if (size != uint64_t(3 * height * width)) return DAMAGED;
        picture = raw_picture(data, height, width);
    } else if (mode == BLOCKS) {
        code = decode_blocks(data, size, height, width, part, own, picture);
    } else {
        code = decode_jpeg(data, size, height, width, part, shrink_of(cut), own, picture);
    }
    if (code != GOOD) return code;
    resize(picture, cut, {pixels, numbers, scale_shift, scale_shift + 3, planar != 0}, own);
    return GOOD;
}

uint64_t kernels_blocks_size(int64_t height, int64_t width) { return blocks_size(height, width); }

void kernels_encode_blocks(const uint8_t* rgb, int64_t height, int64_t width, uint8_t* data) {
    encode_blocks(rgb, height, width, data);
}
}
