// What Python and the JIT code call, by name. Names of storage modes are not known here: see modes.cpp.
#include <algorithm>
#include <chrono>
#include <cstring>

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

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

enum Part { READ, DECODE, RESIZE };

// Adds what passes between laps to the scratch's times, if it is timed.
struct Stopwatch {
    using Clock = std::chrono::steady_clock;
    Scratch& own;
    Clock::time_point last;

    explicit Stopwatch(Scratch& scratch) : own(scratch), last(scratch.timed ? Clock::now() : Clock::time_point()) {}

    void lap(Part part) {
        if (!own.timed) return;
        const Clock::time_point now = Clock::now();
        own.nanoseconds[part] += std::chrono::duration_cast<std::chrono::nanoseconds>(now - last).count();
        last = now;
    }
};

// Touches each page of a payload, so that waiting for a disk does not count as decoding.
void touch(const uint8_t* data, uint64_t size) {
    constexpr uint64_t PAGE = 4096;
    volatile uint8_t byte = 0;
    for (uint64_t at = 0; at < size; at += PAGE) byte = data[at];
    if (size) byte = data[size - 1];
    (void)byte;
}

// A rectangle of the image.
struct Area {
    int64_t top, bottom, left, right;
    bool empty() const { return top >= bottom || left >= right; }
};

Area common(const Area& a, const Area& b) {
    return {std::max(a.top, b.top), std::min(a.bottom, b.bottom), std::max(a.left, b.left), std::min(a.right, b.right)};
}

// Gives `area` a colour (0xRRGGBB).
void paint(const Target& target, const Area& area, int64_t colour) {
    const int rgb[3] = {int(colour >> 16 & 255), int(colour >> 8 & 255), int(colour & 255)};
    for (int64_t y = area.top; y < area.bottom; y++) {
        for (int64_t at = 3 * (y * target.row + area.left), x = area.left; x < area.right; x++, at += 3) {
            for (int c = 0; c < 3; c++) {
                if (target.numbers) target.numbers[at + c] = rgb[c] * target.scale[c] + target.shift[c];
                else target.pixels[at + c] = uint8_t(rgb[c]);
            }
        }
    }
}

// The same for what of `outer` is not in `inner`.
void paint_around(const Target& target, const Area& outer, const Area& inner, int64_t colour) {
    if (inner.empty()) return paint(target, outer, colour);
    paint(target, {outer.top, inner.top, outer.left, outer.right}, colour);
    paint(target, {inner.bottom, outer.bottom, outer.left, outer.right}, colour);
    paint(target, {inner.top, inner.bottom, outer.left, inner.left}, colour);
    paint(target, {inner.top, inner.bottom, inner.right, outer.right}, colour);
}

// Where the image shows the photo once it is moved, and where the resized box has edges with a colour behind them: the
// crop and its target become those of that part, and the rest is painted. Returns whether there is such a part.
bool clip(Crop& crop, Target& target, const int64_t* move, const int64_t* colours) {
    const Area all = {0, crop.height, 0, crop.width};
    Area shown = all;  // before it is mirrored and moved
    if (colours[0] >= 0) shown = common(shown, {-crop.top, crop.rows - crop.top, -crop.left, crop.columns - crop.left});
    auto placed = [&](Area area) {
        if (crop.mirror) area = {area.top, area.bottom, crop.width - area.right, crop.width - area.left};
        return common(all, {area.top + move[0], area.bottom + move[0], area.left + move[1], area.right + move[1]});
    };
    const Area moved = placed(all), seen = placed(shown);
    paint_around(target, all, moved, colours[1]);
    if (!moved.empty()) paint_around(target, moved, seen, colours[0]);
    if (seen.empty()) return false;
    // Back to places of the crop
    const int64_t top = seen.top - move[0], left = seen.left - move[1];
    const int64_t height = seen.bottom - seen.top, width = seen.right - seen.left;
    crop.top += top, crop.left += crop.mirror ? crop.width - left - width : left;
    crop.height = height, crop.width = width;
    const int64_t at = 3 * (seen.top * target.row + seen.left);
    if (target.numbers) target.numbers += at;
    else target.pixels += at;
    return true;
}

// Whether numbers can go past the caches: each vector must begin at a multiple of 64 bytes.
bool can_stream(const Target& target, int64_t width) {
    return target.numbers && uintptr_t(target.numbers) % 64 == 0 && 3 * width % 16 == 0 && 3 * target.row % 16 == 0;
}

// What went past the caches is seen by other threads after this.
void finish_stores() {
#if defined(__SSE__)
    _mm_sfence();
#endif
}

// What is made of each photo: images of height x width pixels one behind the other, as `pixels` or `numbers` (kernels.h).
// `beyond` (0xRRGGBB): what a window shows beyond the edges (-1: it is mirrored there); `free`: what a move leaves.
struct View {
    int64_t beyond, free, height, width;
    uint8_t* pixels;
    float* numbers;
    const float* scale_shift;
};
constexpr int64_t MOST_VIEWS = 64;

struct Wanted {
    Crop crop;
    Target target;
};

// The image of a view of photo `n`; false where nothing of the photo is in it.
bool prepare(const int64_t* place, const View& view, int64_t n, bool large, Wanted& wanted) {
    const int64_t *window = place + 4, *move = place + 10, values = 3 * view.height * view.width;
    wanted.crop = {{place[0], place[1], place[2], place[3]}, window[0], window[1], window[2], window[3],
                   view.height, view.width, int(window[4]), place[9] != 0};
    wanted.target = {view.pixels ? view.pixels + n * values : nullptr, view.numbers ? view.numbers + n * values : nullptr,
                     view.scale_shift, view.scale_shift + 3, view.width, false};
    const int64_t colours[2] = {view.beyond, view.free};
    const bool moves = move[0] || move[1] || colours[0] >= 0;
    if (moves && !clip(wanted.crop, wanted.target, move, colours)) return false;
    wanted.target.stream = large && can_stream(wanted.target, wanted.crop.width);
    return true;
}

// The pixels of the photo that a crop is made of.
Rect part_of(const Crop& crop) {
    Rect part = crop.box;
    needed(part.top, part.height, crop.rows, crop.top, crop.height);
    needed(part.left, part.width, crop.columns, crop.left, crop.width);
    return part;
}

Rect around(const Rect& a, const Rect& b) {
    const int64_t top = std::min(a.top, b.top), left = std::min(a.left, b.left);
    return {top, left, std::max(a.top + a.height, b.top + b.height) - top,
            std::max(a.left + a.width, b.left + b.width) - left};
}

// All views of a photo, which is decoded once: as much of it, and as large, as all of them need.
int crop_photo(const Payload& payload, int64_t mode, const int64_t* places, const View* views, int64_t count, int64_t n,
               bool large, Scratch& scratch) {
    const Decode decode = decoder_of(mode);
    if (!decode) return DECODE_WHOLE;
    Wanted wanted[MOST_VIEWS];
    Rect part{};
    int shrink = 0, number = 0;
    for (int64_t v = 0; v < count; v++) {
        if (!prepare(places + 12 * v, views[v], n, large, wanted[number])) continue;
        const Crop& crop = wanted[number].crop;
        part = number ? around(part, part_of(crop)) : part_of(crop);
        shrink = number ? std::min(shrink, shrink_of(crop)) : shrink_of(crop);
        number++;
    }
    if (!number) return GOOD;
    Stopwatch watch(scratch);
    if (scratch.timed) touch(payload.data, payload.size);
    watch.lap(READ);
    Picture picture;
    const int code = decode(payload, part, shrink, scratch, picture);
    watch.lap(DECODE);
    if (code != GOOD) return code;
    for (int i = 0; i < number; i++) resize(picture, wanted[i].crop, wanted[i].target, scratch);
    watch.lap(RESIZE);
    return GOOD;
}

}  // namespace

EXPORTED void* kernels_open() { return new Scratch; }

EXPORTED void kernels_close(void* scratch) { delete (Scratch*)scratch; }

// From now on time is counted: nanoseconds of reading, decoding and resizing (three), good until the scratch is closed.
EXPORTED int64_t* kernels_times(void* scratch) {
    ((Scratch*)scratch)->timed = true;
    return ((Scratch*)scratch)->nanoseconds;
}

// Samples samples[0] ... samples[count - 1] of a file (all of it at `file`) -> `view_count` images of each, at most
// MOST_VIEWS: view v of sample n is the n-th image of views[v]. `records`: the field's, `layout[0]` bytes apart, in which
// mode, width, height and address of the payload begin at bytes layout[1 ... 4]; `sizes`: of the payloads. `places` has for
// each sample and view the four numbers of a box, the five of a window (beton/stages/base.py), whether the image is
// mirrored, and by how many pixels it is moved in the end, downwards and to the right. Returns GOOD, or the Code of the
// first photo that has another one, and sets `failed` to its place among the samples.
EXPORTED int kernels_crop_all(void* scratch, const uint8_t* file, const uint8_t* records, const int64_t* layout,
                              const int64_t* sizes, const int64_t* samples, int64_t count, const int64_t* places,
                              const View* views, int64_t view_count, int64_t* failed) {
    constexpr int64_t LINE = 64, SOON = 4096;  // bytes: small payloads are fetched while the one before is worked on
    auto read = [&](int64_t n, int field, size_t bytes) {
        uint64_t value = 0;
        std::memcpy(&value, records + samples[n] * layout[0] + layout[field], bytes);
        return value;
    };
    // Of so many bytes nothing will be found in a core's cache again, and past it memory need not be loaded to be written
    constexpr int64_t LARGE = 1 << 20;
    int64_t made = 0;
    for (int64_t v = 0; v < view_count; v++) made += count * views[v].height * views[v].width * 3 * int64_t(sizeof(float));
    for (int64_t n = 0; n < count; n++) {
        if (n + 1 < count) {
            const uint8_t* next = file + read(n + 1, 4, 8);
            for (int64_t at = 0; at < std::min(sizes[samples[n + 1]], SOON); at += LINE) __builtin_prefetch(next + at);
        }
        const Payload payload = {file + read(n, 4, 8), size_t(sizes[samples[n]]), int64_t(read(n, 3, 2)),
                                 int64_t(read(n, 2, 2))};
        const int code = crop_photo(payload, int64_t(read(n, 1, 1)), places + 12 * view_count * n, views, view_count, n,
                                    made >= LARGE, *(Scratch*)scratch);
        if (code != GOOD) {
            finish_stores();
            *failed = n;
            return code;
        }
    }
    finish_stores();
    return GOOD;
}
