// The weights with which pixels of a photo become pixels of an image, along one axis.
#include <algorithm>
#include <cmath>

#include "resize.h"

namespace kernels {
namespace {

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
    const int64_t last = samples - 1, stop = first + count;
    if (!triangle) {
        const int64_t begin = std::min(first / factor, last), end = std::min((stop - 1) / factor, last) + 1;
        for (int64_t k = 0; k < end - begin; k++) of_samples[k] = 0;
        for (int64_t at = first; at < stop; at++) of_samples[std::min(at / factor, last) - begin] += *of_pixels++;
        first = begin;
        return end - begin;
    }
    // libjpeg: a pixel is 3/4 of its own sample and 1/4 of the nearer neighbour, which comes before it where it is even
    const int64_t begin = std::min(std::max<int64_t>((first - 1) >> 1, 0), last);
    const int64_t end = std::min(stop / 2, last) + 1;
    for (int64_t k = 0; k < end - begin; k++) of_samples[k] = 0;
    for (int64_t at = first; at < stop; at++) {
        const int64_t own = std::min(at / 2, last), other = std::min(std::max<int64_t>(own - 1 + 2 * (at & 1), 0), last);
        const float weight = *of_pixels++;
        of_samples[other - begin] += weight * 0.25f;
        of_samples[own - begin] += weight * 0.75f;
    }
    first = begin;
    return end - begin;
}

// What make_weights() makes for means over areas of a channel of full size, with the same bits in less time: loops over
// pixels that the compiler turns into vectors.
FOR_EACH_CPU
void area_weights(const Axis& axis, int64_t prepared, WeightSpace& space,
                  std::vector<double>& doubles, Weights& made) {
    const double scale = axis.length / axis.size, reach = reach_of(axis), start = axis.start;
    const double stop = axis.start + axis.length;
    const int32_t last = int32_t(std::min(int64_t(stop + 0.999999), axis.pixels));
    grow(space.numbers, 2 * prepared);
    grow(doubles, 2 * prepared);
    int32_t *first = space.numbers.data(), *counts = first + prepared;
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
    grow(space.floats, 2 * prepared * taps + prepared);
    made.first = first, made.weights = space.floats.data();
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

// Gives every pixel `taps` weights, of samples that exist: so far it has counts[i], which end within the samples.
ALWAYS_INLINE void even_out(int64_t prepared, const int32_t* counts, Weights& made) {
    for (int64_t i = 0; i < prepared; i++) {
        float* weights = made.weights + i * made.stride;
        if (counts[i] == made.taps) continue;
        const int64_t back = std::max<int64_t>(0, made.first[i] + made.taps - made.end);
        made.first[i] -= int32_t(back);
        for (int64_t k = made.taps - 1; k >= 0; k--) {
            weights[k] = k >= back && k - back < counts[i] ? weights[k - back] : 0.0f;
        }
    }
}

// Those of any filter.
FOR_EACH_CPU
void any_weights(const Question& asked, WeightSpace& space, Weights& made) {
    const Axis& axis = asked.axis;
    const int64_t prepared = asked.prepared;
    const double scale = axis.length / axis.size, reach = reach_of(axis);
    made.stride = int64_t(2 * reach) + 4;
    grow(space.numbers, 2 * prepared);
    grow(space.floats, prepared * made.stride);
    made.first = space.numbers.data(), made.weights = space.floats.data();
    int32_t* counts = made.first + prepared;
    made.begin = asked.samples, made.end = 0, made.taps = 1;
    for (int64_t i = 0; i < prepared; i++) {
        const int64_t at = shown(axis, std::min(i, axis.count - 1));
        int64_t first;
        const int64_t count = pixel_weights(axis, scale, reach, at, first, made.weights + i * made.stride);
        made.first[i] = int32_t(first), counts[i] = int32_t(count);
        made.begin = std::min(made.begin, first), made.end = std::max(made.end, first + count);
        made.taps = std::max(made.taps, count);
    }
    even_out(prepared, counts, made);
}

// Those of a channel that has fewer samples than the photo has pixels, from the pixels' own.
FOR_EACH_CPU
void weights_of_samples(const Question& asked, const Weights& pixels, WeightSpace& space, Weights& made) {
    constexpr int64_t FEW = 16, ROOM = 4;
    const int64_t prepared = asked.prepared, taps = pixels.taps;
    made.stride = taps / asked.factor + 4;
    grow(space.numbers, 2 * prepared);
    grow(space.floats, prepared * made.stride);
    made.first = space.numbers.data(), made.weights = space.floats.data();
    int32_t* counts = made.first + prepared;
    made.begin = asked.samples, made.end = 0, made.taps = 1;
    float near[ROOM + FEW + ROOM] = {};
    for (int64_t i = 0; i < prepared; i++) {
        const float* of_pixels = pixels.weights + i * pixels.stride;
        float* weights = made.weights + i * made.stride;
        int64_t first = pixels.first[i], count;
        if (asked.triangle && taps <= FEW && first > 0 && (first + taps) / 2 < asked.samples) {
            // Away from the edges, the same sums sample by sample
            for (int64_t k = 0; k < taps; k++) near[ROOM + k] = of_pixels[k];
            const int64_t begin = (first - 1) / 2;
            count = (first + taps) / 2 + 1 - begin;
            const float* from = near + ROOM + 2 * begin - first;
            for (int64_t k = 0; k < count; k++, from += 2) {
                weights[k] = from[-1] * 0.25f + from[0] * 0.75f + from[1] * 0.75f + from[2] * 0.25f;
            }
            first = begin;
        } else {
            count = sample_weights(asked.factor, asked.triangle, asked.samples, first, of_pixels, taps, weights);
        }
        made.first[i] = int32_t(first), counts[i] = int32_t(count);
        made.begin = std::min(made.begin, first), made.end = std::max(made.end, first + count);
        made.taps = std::max(made.taps, count);
    }
    even_out(prepared, counts, made);
}

// Sets `starts`, `picks` and `of_picks`, where they can be.
void set_picks(const Question& asked, WeightSpace& space, Weights& made) {
    const int channels = asked.channels;
    const int64_t blocks = asked.prepared * channels / LANES;
    made.starts = nullptr;
    if (!channels || made.taps > FEW_TAPS || asked.axis.length > asked.axis.size) return;
    grow(space.starts, blocks);
    grow(space.picks, blocks * LANES);
    grow(space.of_picks, blocks * LANES * made.taps);
    int64_t pixel = 0;
    int channel = 0;
    for (int64_t block = 0; block < blocks; block++) {
        int32_t from[LANES], low = INT32_MAX, high = 0;
        float* weights = space.of_picks.data() + block * LANES * made.taps;
        for (int i = 0; i < LANES; i++) {
            from[i] = made.first[pixel] * channels + channel;
            low = std::min(low, from[i]), high = std::max(high, from[i]);
            for (int64_t k = 0; k < made.taps; k++) weights[k * LANES + i] = made.weights[pixel * made.stride + k];
            if (++channel == channels) channel = 0, pixel++;
        }
        if (high - low >= LANES) return;
        space.starts[block] = low;
        for (int i = 0; i < LANES; i++) space.picks[block * LANES + i] = uint8_t(from[i] - low);
    }
    made.starts = space.starts.data(), made.picks = space.picks.data(), made.of_picks = space.of_picks.data();
}

void work_out(const Question& asked, const Weights& pixels, WeightSpace& space, std::vector<double>& doubles,
              Weights& made) {
    if (asked.factor > 1) {
        weights_of_samples(asked, pixels, space, made);
    } else if (asked.axis.filter == AREA) {
        area_weights(asked.axis, asked.prepared, space, doubles, made);
    } else {
        any_weights(asked, space, made);
    }
    set_picks(asked, space, made);
}

// Weights that were worked out before.
struct Kept : KeptWeights {
    Question asked;
    WeightSpace space;
    Weights made;
};

}  // namespace

// A small photo has few boxes, so that theirs are kept: for 32 x 32 pixels, working them out took a seventh of the time.
void make_weights(const Question& asked, const Weights& pixels, Scratch& scratch, int place, Weights& made) {
    constexpr int64_t SMALL = 64;
    const int64_t start = int64_t(asked.axis.start), length = int64_t(asked.axis.length);
    if (asked.axis.pixels > SMALL || start < 0 || start >= SMALL || length < 1 || length > SMALL) {
        return work_out(asked, pixels, scratch.weights[place], scratch.doubles, made);
    }
    auto& all = scratch.kept[place];
    if (all.empty()) all.resize(2 * SMALL * SMALL);
    auto& own = all[(asked.axis.mirror * SMALL + start) * SMALL + length - 1];
    if (!own) own = std::make_unique<Kept>();
    Kept& kept = static_cast<Kept&>(*own);
    if (!(kept.asked == asked)) {
        kept.asked = asked;
        work_out(asked, pixels, kept.space, scratch.doubles, kept.made);
    }
    made = kept.made;
}

}  // namespace kernels
