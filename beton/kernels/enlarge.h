// A resize that shrinks no column, in less time than passes.h takes and with the same bits: 16 numbers come from 16 bytes
// that one instruction picks, so that nothing is transposed, and what is between the passes stays float32.
//
// Only passes.h includes this.
#pragma once

namespace kernels {
namespace {

// A row of a plane -> its columns, weighed and rounded. `line` begins with sample columns.begin.
template <int CHANNELS, int TAPS, bool CLAMP>
ALWAYS_INLINE void weigh_row(const uint8_t* line, const Weights& columns, int64_t count, float* made) {
    const int64_t taps = TAPS ? TAPS : columns.taps;
    for (int64_t x = 0; x < count; x += LANES) {
        const uint8_t *from = line + columns.starts[x / LANES] - columns.begin * CHANNELS, *picks = columns.picks + x;
        const float* weights = columns.of_picks + x * taps;
        Floats sum = load_picked(from, picks) * load(weights);
        for (int64_t k = 1; k < taps; k++) {
            sum = sum + load_picked(from + k * CHANNELS, picks) * load(weights + k * LANES);
        }
        store(made + x, rounded<CLAMP>(sum));
    }
}

// The same for row `y` of plane `p`, into the ring. It is copied first where a vector would read beyond the plane's end.
template <int CHANNELS, bool CLAMP>
ALWAYS_INLINE void add_row(const Job& job, int p, int64_t y) {
    const Plane& plane = job.planes[p];
    const Weights& columns = job.columns[p > 0];
    const uint8_t* row = plane.pixels + (y - plane.top) * plane.step + (columns.begin - plane.left) * CHANNELS;
    const uint8_t* end = plane.pixels + (plane.height - 1) * plane.step + plane.width * CHANNELS;
    const int64_t bytes = bytes_of<CHANNELS>(columns), count = padded(job.width) * CHANNELS;
    if (end - row < bytes + LANES) {
        for (int64_t x = 0; x < bytes; x += LANES) {
            const int64_t at = std::min(x, bytes - LANES);
            *(Bytes*)(job.line + at) = *(const Bytes*)(row + at);
        }
        row = job.line;
    }
    float* made = job.ring[p] + y % FEW_TAPS * count;
    for_taps(columns.taps, [&](auto taps) { weigh_row<CHANNELS, taps, CLAMP>(row, columns, count, made); });
}

// Rows of the ring, added up: 16 numbers of row `y` of the image.
template <int TAPS, bool CLAMP>
ALWAYS_INLINE Floats sum_ring(const float* const* rows, const float* weights, int64_t taps, int64_t x) {
    if (TAPS) taps = TAPS;
    Floats sum = load(rows[0] + x) * splat(weights[0]);
    for (int64_t k = 1; k < taps; k++) sum = sum + load(rows[k] + x) * splat(weights[k]);
    return rounded<CLAMP>(sum);
}

// Row `y` of the image, of RGB.
template <int TAPS, bool CLAMP>
ALWAYS_INLINE void write_rgb(const Writer& writer, int64_t y, const float* const* rows, const float* weights,
                             int64_t taps) {
    if (TAPS) taps = TAPS;
    const Target& target = writer.target;
    const int64_t count = 3 * writer.width;
    float own[FEW_TAPS];  // the compiler does not know that they are not in the target
    std::copy(weights, weights + taps, own);
    for (int64_t x = 0; x < count; x += 3 * LANES) {
        for (int i = 0; i < 3; i++) {
            const int64_t at = x + i * LANES, to = 3 * y * target.row + at;
            if (at >= count) break;
            const Floats sum = sum_ring<TAPS, CLAMP>(rows, own, taps, at);
            if (target.numbers && at + LANES <= count) {
                writer.store_numbers(target.numbers + to, sum * load(writer.scale[i]) + load(writer.shift[i]));
            } else {
                Bytes bytes;
                store_rounded((uint8_t*)&bytes, sum);
                writer.put(to, bytes, i, std::min<int64_t>(LANES, count - at));
            }
        }
    }
}

// Row `y` of the image, of planes.
template <Picture::Kind KIND, int TAPS, int COLOUR_TAPS, bool CLAMP>
ALWAYS_INLINE void write_planes(const Job& job, const Writer& writer, int64_t y, const float* const (*rows)[FEW_TAPS]) {
    constexpr int PLANES = KIND == Picture::YCC ? 3 : 1;
    const float* weights[PLANES];
    for (int p = 0; p < PLANES; p++) weights[p] = job.rows[p > 0].weights + y * job.rows[p > 0].stride;
    for (int64_t x = 0; x < writer.width; x += LANES) {
        Floats planes[PLANES];
        planes[0] = sum_ring<TAPS, CLAMP>(rows[0], weights[0], job.rows[0].taps, x);
        for (int p = 1; p < PLANES; p++) {
            planes[p] = sum_ring<COLOUR_TAPS, CLAMP>(rows[p], weights[p], job.rows[1].taps, x);
        }
        writer.put_planes<KIND>(y, x, planes);
    }
}

template <Picture::Kind KIND, bool CLAMP>
ALWAYS_INLINE void enlarge(const Job& job, const Writer& writer) {
    constexpr int PLANES = KIND == Picture::YCC ? 3 : 1, CHANNELS = KIND == Picture::RGB ? 3 : 1;
    const int64_t count = padded(job.width) * CHANNELS;
    int64_t next[PLANES];  // the row that the ring gets next
    for (int p = 0; p < PLANES; p++) next[p] = job.rows[p > 0].begin;
    for (int64_t y = 0; y < job.height; y++) {
        const float* rows[PLANES][FEW_TAPS];
        for (int p = 0; p < PLANES; p++) {
            const Weights& of = job.rows[p > 0];
            for (; next[p] < of.first[y] + of.taps; next[p]++) add_row<CHANNELS, CLAMP>(job, p, next[p]);
            for (int k = 0; k < FEW_TAPS; k++) rows[p][k] = job.ring[p] + (of.first[y] + k) % FEW_TAPS * count;
        }
        if (KIND == Picture::RGB) {
            const Weights& of = job.rows[0];
            for_taps(of.taps, [&](auto taps) {
                write_rgb<taps, CLAMP>(writer, y, rows[0], of.weights + y * of.stride, of.taps);
            });
        } else if (KIND == Picture::GRAY) {
            for_taps(job.rows[0].taps, [&](auto taps) { write_planes<KIND, taps, 1, CLAMP>(job, writer, y, rows); });
        } else {
            for_taps(job.rows[0].taps, job.rows[1].taps, [&](auto taps, auto colours) {
                write_planes<KIND, taps, colours, CLAMP>(job, writer, y, rows);
            });
        }
    }
}

ALWAYS_INLINE void enlarge(const Job& job, const Writer& writer) {
    if (job.kind == Picture::RGB) {
        return job.clamp ? enlarge<Picture::RGB, true>(job, writer) : enlarge<Picture::RGB, false>(job, writer);
    }
    if (job.kind == Picture::YCC) {
        return job.clamp ? enlarge<Picture::YCC, true>(job, writer) : enlarge<Picture::YCC, false>(job, writer);
    }
    return job.clamp ? enlarge<Picture::GRAY, true>(job, writer) : enlarge<Picture::GRAY, false>(job, writer);
}

}  // namespace
}  // namespace kernels
