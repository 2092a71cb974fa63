// A part of a decoded photo -> one image of the batch: resized, converted to RGB, mirrored, normalised.
//
// Each pixel of the result is a weighted mean over columns of weighted means over rows, or the other way round, in
// float32; bytes lie between the two, as in Pillow, and in its order. Here the weights are made, in passes.h they
// are used.
//
// Colour planes are not interpolated to the size of the brightness plane first: the weights of the colour samples are
// those of the pixels, handed on through libjpeg's triangle filter ("fancy upsampling").
#include <algorithm>
#include <cmath>
#include <cstring>

#include "resize.h"

namespace kernels {
namespace {

template <class Value>
void grow(std::vector<Value>& space, int64_t size) {
    if (int64_t(space.size()) < size) space.resize(size);
}

// One axis of a Crop.
struct Axis {
    double start, length;   // the box, in pixels of the photo (of the shrunken one, if it was decoded so)
    int64_t pixels;         // of that photo
    int64_t size;           // the box is resized to so many,
    int64_t window, count;  // of which the image shows `count` from `window` on
    bool mirror;
    int filter;
};

enum Filter { BILINEAR = 0, BICUBIC = 1, AREA = 2 };

// Which pixel of the resized box the image shows at i.
ALWAYS_INLINE int64_t shown(const Axis& axis, int64_t i) {
    if (axis.mirror) i = axis.count - 1 - i;
    i += axis.window;
    if (i >= 0 && i < axis.size) return i;
    int64_t period = std::max<int64_t>(1, 2 * (axis.size - 1));
    i %= period;
    if (i < 0) i += period;
    return std::min(i, period - i);
}

// How far from its centre a pixel of the resized box looks, in pixels of the photo.
double reach_of(const Axis& axis) {
    double scale = axis.length / axis.size;
    if (axis.filter == AREA) return scale / 2;
    return std::max(1.0, scale) * (axis.filter == BILINEAR ? 1 : 2);
}

// The cubic of Keys (1981) with a = -0.5, as Pillow has it.
ALWAYS_INLINE float cubic(float x) {
    if (x < 1) return (1.5f * x - 2.5f) * x * x + 1;
    return x < 2 ? ((-0.5f * x + 2.5f) * x - 4) * x + 2 : 0;
}

// Sets the weights of the photo's pixels first, first + 1, ... in pixel `at` of the resized box; returns their number.
ALWAYS_INLINE int64_t pixel_weights(const Axis& axis, double scale, double reach, int64_t at, int64_t& first, float* weights) {
    const double centre = axis.start + (at + 0.5) * scale;
    const double low = std::max(centre - reach, axis.start);
    const double high = std::min(centre + reach, axis.start + axis.length);
    const int64_t last = std::min(int64_t(axis.start + axis.length + 0.999999), axis.pixels);
    int64_t end;
    if (axis.filter == AREA) {  // the slack keeps rounding from adding a pixel of no weight
        first = std::min(int64_t(low + 1e-6), last - 1), end = std::min(int64_t(high + 0.999999), last);
        end = std::max(end, first + 1);
        for (int64_t k = first; k < end; k++) {
            weights[k - first] = float(std::min<double>(k + 1, high) - std::max<double>(k, low));
        }
    } else {
        first = std::min(int64_t(low + 0.5), last - 1), end = std::min(int64_t(high + 0.5), last);
        end = std::max(end, first + 1);
        const float stretch = float(1 / std::max(1.0, scale));
        for (int64_t k = first; k < end; k++) {
            const float x = std::fabs(float(k + 0.5 - centre)) * stretch;
            weights[k - first] = axis.filter == BILINEAR ? std::max(0.0f, 1 - x) : cubic(x);
        }
    }
    float total = 0;
    for (int64_t k = 0; k < end - first; k++) total += weights[k];
    if (total <= 0) weights[0] = total = 1;
    total = 1 / total;
    for (int64_t k = 0; k < end - first; k++) weights[k] *= total;
    return end - first;
}

// Weights of pixels -> weights of samples that cover `factor` pixels each. Changes `first`, returns the number.
ALWAYS_INLINE int64_t sample_weights(int factor, bool triangle, int64_t samples, int64_t& first, const float* of_pixels,
                              int64_t count, float* of_samples) {
    const int64_t last = samples - 1;
    const int64_t begin = std::max<int64_t>(0, std::min(first / factor, last) - 1);
    const int64_t end = std::min(last, (first + count - 1) / factor + 1) + 1;
    for (int64_t k = 0; k < end - begin; k++) of_samples[k] = 0;
    for (int64_t k = 0; k < count; k++) {
        const int64_t own = std::min((first + k) / factor, last);
        float weight = of_pixels[k];
        if (triangle) {  // libjpeg: a pixel is 3/4 of its own sample and 1/4 of the nearer neighbour
            const int64_t other = std::min(std::max<int64_t>(own + ((first + k) % 2 ? 1 : -1), 0), last);
            of_samples[other - begin] += weight * 0.25f;
            weight *= 0.75f;
        }
        of_samples[own - begin] += weight;
    }
    first = begin;
    return end - begin;
}

// What make_weights() makes for means over areas of a channel of full size, with the same bits in less time: loops over
// pixels that the compiler turns into vectors.
FOR_EACH_CPU
void area_weights(const Axis& axis, int64_t prepared, std::vector<int32_t>& numbers, std::vector<float>& floats,
                  std::vector<double>& doubles, Weights& made) {
    const double scale = axis.length / axis.size, reach = reach_of(axis), start = axis.start;
    const double stop = axis.start + axis.length;
    const int32_t last = int32_t(std::min(int64_t(stop + 0.999999), axis.pixels));
    grow(numbers, 2 * prepared);
    grow(doubles, 2 * prepared);
    int32_t *first = numbers.data(), *counts = first + prepared;
    double *low = doubles.data(), *high = low + prepared;
    for (int64_t i = 0; i < prepared; i++) counts[i] = int32_t(shown(axis, std::min(i, axis.count - 1)));
    for (int64_t i = 0; i < prepared; i++) {
        const double centre = start + (counts[i] + 0.5) * scale;
        low[i] = std::max(centre - reach, start), high[i] = std::min(centre + reach, stop);
        first[i] = std::min(int32_t(low[i] + 1e-6), last - 1);
        counts[i] = std::max(std::min(int32_t(high[i] + 0.999999), last), first[i] + 1) - first[i];
    }
    int32_t begin = first[0], end = 0, taps = 1;
    for (int64_t i = 0; i < prepared; i++) {
        begin = std::min(begin, first[i]), end = std::max(end, first[i] + counts[i]), taps = std::max(taps, counts[i]);
    }
    made.begin = begin, made.end = end, made.taps = made.stride = taps;
    grow(floats, 2 * prepared * taps + prepared);
    made.first = first, made.weights = floats.data();
    float *of_tap = made.weights + prepared * taps, *totals = of_tap + prepared * taps;
    for (int64_t i = 0; i < prepared; i++) totals[i] = 0;
    for (int32_t k = 0; k < taps; k++, of_tap += prepared) {
        for (int64_t i = 0; i < prepared; i++) {
            const double at = first[i] + k;
            const float weight = float(std::min(at + 1, high[i]) - std::max(at, low[i]));
            of_tap[i] = k < counts[i] ? weight : 0.0f;
            totals[i] += of_tap[i];
        }
    }
    of_tap -= prepared * taps;
    for (int64_t i = 0; i < prepared; i++) {
        if (totals[i] <= 0) of_tap[i] = totals[i] = 1;
        totals[i] = 1 / totals[i];
        const int32_t back = std::max(0, first[i] + taps - end);  // every pixel has `taps` samples that exist
        first[i] -= back;
        float* weights = made.weights + i * taps;
        for (int32_t k = 0; k < taps; k++) weights[k] = k < back ? 0.0f : of_tap[(k - back) * prepared + i] * totals[i];
    }
}

// What the weights of one axis depend on: a channel has `samples` samples that cover `factor` pixels each, `prepared` pixels
// are worked out. Those beyond axis.count repeat the last one.
struct Question {
    Axis axis;
    int factor;
    bool triangle;
    int64_t samples, prepared;

    bool operator==(const Question& other) const {
        const Axis &a = axis, &b = other.axis;
        return a.start == b.start && a.length == b.length && a.pixels == b.pixels && a.size == b.size &&
               a.window == b.window && a.count == b.count && a.mirror == b.mirror && a.filter == b.filter &&
               factor == other.factor && triangle == other.triangle && samples == other.samples &&
               prepared == other.prepared;
    }
};

// Works them out, in memory that is the caller's.
FOR_EACH_CPU
void work_out(const Question& asked, std::vector<int32_t>& numbers, std::vector<float>& floats,
              std::vector<double>& doubles, Weights& made) {
    const Axis& axis = asked.axis;
    const int factor = asked.factor;
    const int64_t prepared = asked.prepared;
    if (factor == 1 && axis.filter == AREA) return area_weights(axis, prepared, numbers, floats, doubles, made);
    const double scale = axis.length / axis.size, reach = reach_of(axis);
    const int64_t most = int64_t(2 * reach) + 4;
    made.stride = std::max<int64_t>(most, most / factor + 5);
    grow(numbers, 2 * prepared);
    grow(floats, prepared * made.stride + most);
    made.first = numbers.data(), made.weights = floats.data();
    int32_t* counts = made.first + prepared;
    float* of_pixels = made.weights + prepared * made.stride;
    made.begin = asked.samples, made.end = 0, made.taps = 1;
    for (int64_t i = 0; i < prepared; i++) {
        float* weights = made.weights + i * made.stride;
        const int64_t at = shown(axis, std::min(i, axis.count - 1));
        int64_t first, count;
        if (factor == 1) {
            count = pixel_weights(axis, scale, reach, at, first, weights);
        } else {
            count = pixel_weights(axis, scale, reach, at, first, of_pixels);
            count = sample_weights(factor, asked.triangle, asked.samples, first, of_pixels, count, weights);
        }
        made.first[i] = int32_t(first), counts[i] = int32_t(count);
        made.begin = std::min(made.begin, first), made.end = std::max(made.end, first + count);
        made.taps = std::max(made.taps, count);
    }
    for (int64_t i = 0; i < prepared; i++) {  // every pixel has `taps` weights, of samples that exist
        float* weights = made.weights + i * made.stride;
        if (counts[i] == made.taps) continue;  // they end within the samples, as they are
        const int64_t back = std::max<int64_t>(0, made.first[i] + made.taps - made.end);
        made.first[i] -= int32_t(back);
        for (int64_t k = made.taps - 1; k >= 0; k--) {
            weights[k] = k >= back && k - back < counts[i] ? weights[k - back] : 0.0f;
        }
    }
}

// Weights that were worked out before.
struct Kept {
    Question asked;
    std::vector<int32_t> numbers;
    std::vector<float> floats;
    Weights made;
};

// The weights of one axis, in `place` of the scratch. A small photo has few boxes, so that theirs are kept: of 32 x 32
// pixels, working them out took a seventh of the time of a crop.
void make_weights(const Question& asked, Scratch& scratch, int place, Weights& made) {
    constexpr int64_t SMALL = 64;
    const int64_t start = int64_t(asked.axis.start), length = int64_t(asked.axis.length);
    if (asked.axis.pixels > SMALL || start < 0 || start >= SMALL || length < 1 || length > SMALL) {
        return work_out(asked, scratch.numbers[place], scratch.floats[place], scratch.doubles, made);
    }
    auto& all = scratch.kept[place];
    if (all.empty()) all.resize(2 * SMALL * SMALL);
    auto& own = all[(asked.axis.mirror * SMALL + start) * SMALL + length - 1];
    if (!own) own = std::make_shared<Kept>();
    Kept& kept = *(Kept*)own.get();
    if (!(kept.asked == asked)) {
        kept.asked = asked;
        work_out(asked, kept.numbers, kept.floats, scratch.doubles, kept.made);
    }
    made = kept.made;
}

// Give a job its memory. All sizes are multiples of 16 bytes.
void lay_out(Job& job, const Picture& picture, int planes, int channels, Scratch& scratch) {
    int64_t total = 0, widest = 0;
    int64_t narrow[3] = {}, between[3], last[3];
    for (int p = 0; p < planes; p++) {
        const Plane& plane = picture.planes[p];
        Weights &rows = job.rows[p > 0], &columns = job.columns[p > 0];
        if (plane.width * channels < LANES) narrow[p] = plane.height * LANES;
        // A vector has 16 bytes, so at least so many are summed up
        const int64_t least = std::min((LANES + channels - 1) / channels, int(plane.width));
        columns.begin = std::max(plane.left, std::min(columns.begin, columns.end - least));
        columns.end = std::max(columns.end, columns.begin + least);
        const int64_t bytes = std::max<int64_t>(LANES, (columns.end - columns.begin) * channels);
        const int64_t made = padded(job.width) * channels;
        job.step[p] = job.rows_first ? padded(bytes) : made;
        between[p] = job.step[p] * padded(job.rows_first ? job.height : rows.end - rows.begin);
        last[p] = made * (job.rows_first ? LANES : 1);
        widest = std::max(widest, padded(bytes));
        total += narrow[p] + between[p] + last[p];
    }
    grow(scratch.bytes[3], total + widest * LANES);
    uint8_t* at = scratch.bytes[3].data();
    job.square = at, at += widest * LANES;
    for (int p = 0; p < planes; p++) {
        Plane& plane = job.planes[p] = picture.planes[p];
        if (narrow[p]) {
            for (int64_t y = 0; y < plane.height; y++) {
                std::memcpy(at + y * LANES, plane.pixels + y * plane.step, plane.width * channels);
            }
            plane.pixels = at, plane.step = LANES, at += narrow[p];
        }
        job.between[p] = at, at += between[p];
        job.last[p] = at, at += last[p];
    }
}

// The passes for this CPU.
auto passes() {
#if defined(CHOOSE_BY_CPU)
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")) return passes_avx512;
    if (__builtin_cpu_supports("avx2")) return passes_avx2;
#endif
    return passes_plain;
}

Axis axis_of(int64_t start, int64_t length, int64_t pixels, int shrink, int64_t size, int64_t window, int64_t count,
             bool mirror, int filter) {
    const double whole = 1 << shrink;
    return {start / whole, length / whole, pixels, size, window, count, mirror, filter};
}

// Whether the image is a part of the photo as it is: every filter gives the pixel itself where nothing is resized.
bool is_copy(const Picture& picture, const Crop& crop) {
    const Plane& plane = picture.planes[0];
    auto within = [](int64_t start, int64_t length, int64_t size) { return start >= 0 && start + length <= size; };
    return picture.kind == Picture::RGB && picture.shrink == 0 && crop.box.height == crop.rows &&
           crop.box.width == crop.columns && within(crop.top, crop.height, crop.rows) &&
           within(crop.left, crop.width, crop.columns) &&
           within(crop.box.top + crop.top - plane.top, crop.height, plane.height) &&
           within(crop.box.left + crop.left - plane.left, crop.width, plane.width);
}

void copy(const Picture& picture, const Crop& crop, const Target& target, Scratch& scratch) {
    Job job{};
    job.kind = picture.kind, job.height = crop.height, job.width = crop.width, job.copy = true, job.mirror = crop.mirror;
    Plane& plane = job.planes[0] = picture.planes[0];
    plane.pixels += (crop.box.top + crop.top - plane.top) * plane.step + 3 * (crop.box.left + crop.left - plane.left);
    const int64_t bytes = 3 * padded(crop.width);
    grow(scratch.bytes[3], 2 * bytes + 6 * LANES);
    job.square = scratch.bytes[3].data(), job.last[0] = job.square + bytes;
    passes()(job, target);
}

}  // namespace

void resize(const Picture& picture, const Crop& crop, const Target& target, Scratch& scratch) {
    if (is_copy(picture, crop)) return copy(picture, crop, target, scratch);
    const Plane& first = picture.planes[0];
    const Axis axes[2] = {
        axis_of(crop.box.top, crop.box.height, first.full_height, picture.shrink, crop.rows, crop.top, crop.height, false,
                crop.filter),
        axis_of(crop.box.left, crop.box.width, first.full_width, picture.shrink, crop.columns, crop.left, crop.width,
                crop.mirror, crop.filter)};
    const int planes = picture.kind == Picture::YCC ? 3 : 1, channels = picture.kind == Picture::RGB ? 3 : 1;
    Job job{};
    job.kind = picture.kind, job.height = crop.height, job.width = crop.width;
    for (int p = 0; p < std::min(planes, 2); p++) {
        const Plane& plane = picture.planes[p];
        const bool triangle = plane.full_width > 2 || plane.wide == 1;  // libjpeg repeats where there are but two
        make_weights({axes[0], plane.tall, triangle && plane.tall == 2, plane.full_height, padded(crop.height)}, scratch,
                     2 * p, job.rows[p]);
        make_weights({axes[1], plane.wide, triangle && plane.wide == 2, plane.full_width, padded(crop.width)}, scratch,
                     2 * p + 1, job.columns[p]);
    }
    // Pillow 13 begins with the rows where that leaves much less to do
    const int64_t fewer_rows = int64_t(axes[0].length) - crop.rows;
    const int64_t fewer_columns = int64_t(axes[1].length) - crop.columns;
    job.rows_first = fewer_rows > 0 && fewer_rows > 2 * fewer_columns;
    lay_out(job, picture, planes, channels, scratch);
    passes()(job, target);
}

}  // namespace kernels
