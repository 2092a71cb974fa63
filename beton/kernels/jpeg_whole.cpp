// A whole JPEG -> pixels, with the bits that libjpeg-turbo gives, and so Pillow: what the writer begins with.
//
// Where the colour planes have fewer samples they are interpolated by libjpeg's triangle filter ("fancy upsampling"):
// a pixel is 3/4 of its own sample and 1/4 of the nearer neighbour, in integers, rounded up and down in turns.
#include <algorithm>
#include <cstring>
#include <vector>

#include "bytes.h"
#include "kernels.h"

namespace kernels {
namespace {

// One row of a colour plane before it is widened: `sums` are samples, times 4 where two rows are combined.
// sums[-1] and sums[count] repeat the edge.
FOR_EACH_CPU void combine(const uint8_t* __restrict own, const uint8_t* __restrict other, int64_t count,
                          uint16_t* __restrict sums) {
    for (int64_t i = 0; i < count; i++) sums[i] = uint16_t(3 * own[i] + other[i]);
    sums[-1] = sums[0], sums[count] = sums[count - 1];
}

FOR_EACH_CPU void widen(const uint16_t* __restrict sums, int64_t count, int left, int right, int shift,
                        uint8_t* __restrict made) {
    for (int64_t i = 0; i < count; i++) {
        made[2 * i] = uint8_t((3 * sums[i] + sums[i - 1] + left) >> shift);
        made[2 * i + 1] = uint8_t((3 * sums[i] + sums[i + 1] + right) >> shift);
    }
}

// Row `y` of the photo in one of its planes, as wide as the photo or wider.
void sample_row(const Plane& plane, int64_t y, uint16_t* sums, uint8_t* made) {
    const int64_t count = plane.width, row = y / plane.tall;
    const uint8_t* own = plane.pixels + row * plane.step;
    if (plane.tall == 1 && plane.wide == 1) {
        std::copy_n(own, count, made);
    } else if (plane.wide == 4 || (plane.wide == 2 && count <= 2)) {  // libjpeg repeats there
        for (int64_t i = 0; i < count; i++) std::fill_n(made + i * plane.wide, plane.wide, own[i]);
    } else if (plane.tall == 1) {
        std::copy_n(own, count, sums);
        sums[-1] = own[0], sums[count] = own[count - 1];
        widen(sums, count, 1, 2, 2, made);
    } else {
        const int64_t other = std::min(std::max<int64_t>(row + (y % 2 ? 1 : -1), 0), plane.height - 1);
        combine(own, plane.pixels + other * plane.step, count, sums);
        if (plane.wide == 2) {
            widen(sums, count, 8, 7, 4, made);
        } else {
            for (int64_t i = 0; i < count; i++) made[i] = uint8_t((sums[i] + 1 + y % 2) >> 2);
        }
    }
}

// JPEG's YCbCr -> RGB with libjpeg's numbers, times 2^16: `first` becomes red, `second` green, `third` blue.
FOR_EACH_CPU void to_rgb(uint8_t* __restrict first, uint8_t* __restrict second, uint8_t* __restrict third,
                         int64_t count) {
    auto clamp = [](int value) { return uint8_t(value < 0 ? 0 : value > 255 ? 255 : value); };
    for (int64_t i = 0; i < count; i++) {
        const int y = first[i], cb = second[i] - 128, cr = third[i] - 128;
        first[i] = clamp(y + ((91881 * cr + 32768) >> 16));
        second[i] = clamp(y + ((-22554 * cb - 46802 * cr + 32768) >> 16));
        third[i] = clamp(y + ((116130 * cb + 32768) >> 16));
    }
}

FOR_EACH_CPU void interleave_rows(const uint8_t* first, const uint8_t* second, const uint8_t* third, int64_t count,
                                  uint8_t* made) {
    for (int64_t i = 0; i < count; i += LANES) {
        const Bytes rgb[3] = {*(const Bytes*)(first + i), *(const Bytes*)(second + i), *(const Bytes*)(third + i)};
        interleave(rgb, (Bytes*)(made + 3 * i));
    }
}

}  // namespace
}  // namespace kernels

// A JPEG of YCbCr -> height x width x 3 pixels, RGB or BGR. Returns a Code.
EXPORTED int kernels_decode_jpeg(void* scratch, const uint8_t* data, uint64_t size, int64_t height, int64_t width,
                                 int64_t bgr, uint8_t* pixels) {
    using namespace kernels;
    Picture picture;
    const int code = decode_jpeg_strictly({data, size_t(size), height, width}, *(Scratch*)scratch, picture);
    if (code != GOOD) return code;
    if (picture.kind != Picture::YCC) return DECODE_WHOLE;
    // Rows with room for whole vectors
    const size_t room = size_t(width + LANES + 4);
    std::vector<uint16_t> sums(room);
    std::vector<uint8_t> rows[4] = {std::vector<uint8_t>(room), std::vector<uint8_t>(room), std::vector<uint8_t>(room),
                                    std::vector<uint8_t>(3 * room)};
    uint8_t *first = rows[0].data(), *second = rows[1].data(), *third = rows[2].data(), *made = rows[3].data();
    for (int64_t y = 0; y < height; y++) {
        for (int i = 0; i < 3; i++) sample_row(picture.planes[i], y, sums.data() + 1, rows[i].data());
        to_rgb(first, second, third, width);
        // Whole vectors reach into the next row, which is made later; at the end there is none
        uint8_t* row = pixels + 3 * y * width;
        const bool fits = y * width + (width + LANES - 1) / LANES * LANES <= height * width;
        interleave_rows(bgr ? third : first, second, bgr ? first : third, width, fits ? row : made);
        if (!fits) std::memcpy(row, made, size_t(3 * width));
    }
    return GOOD;
}
