// What Python and the JIT code call, by name. Names of storage modes are not known here: see modes.cpp.
#include <algorithm>

#include "kernels.h"

using namespace kernels;

namespace {

// Decoded at a half (1), a quarter (2), ... when the image is so much smaller that nothing is lost by it.
int shrink_of(const Crop& crop) {
    const int64_t ratio = std::min(crop.box.height / crop.rows, crop.box.width / crop.columns);
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

EXPORTED void* kernels_open() { return new Scratch; }

EXPORTED void kernels_close(void* scratch) { delete (Scratch*)scratch; }

// One photo -> one image. `box` is four numbers, `window` rows, columns, top, left, filter (beton/stages/base.py).
// Returns a Code.
EXPORTED int kernels_crop(void* scratch, const uint8_t* data, uint64_t size, int64_t mode, int64_t height,
                          int64_t width, const int64_t* box, const int64_t* window, int64_t mirror,
                          int64_t image_height, int64_t image_width, uint8_t* pixels, float* numbers,
                          const float* scale_shift) {
    const Decode decode = decoder_of(mode);
    if (!decode) return DECODE_WHOLE;
    Scratch& own = *(Scratch*)scratch;
    const Crop crop = {{box[0], box[1], box[2], box[3]}, window[0], window[1], window[2], window[3],
                       image_height, image_width, int(window[4]), mirror != 0};
    Rect part = crop.box;
    needed(part.top, part.height, crop.rows, crop.top, crop.height);
    needed(part.left, part.width, crop.columns, crop.left, crop.width);
    Picture picture;
    const int code = decode({data, size_t(size), height, width}, part, shrink_of(crop), own, picture);
    if (code == GOOD) resize(picture, crop, {pixels, numbers, scale_shift, scale_shift + 3}, own);
    return code;
}
