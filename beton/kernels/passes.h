// The passes of a resize: included by passes_*.cpp, each of which is compiled for one kind of CPU.
#include <algorithm>
#include <type_traits>

#include "resize.h"
#include "simd.h"

namespace kernels {
namespace {

// Calls call(Count<taps>()) where there are few, so that its loops over them are unrolled, else call(Count<0>()).
template <int TAPS>
using Count = std::integral_constant<int, TAPS>;

template <class Call>
ALWAYS_INLINE void for_taps(int64_t taps, const Call& call) {
    switch (taps) {
        case 1: return call(Count<1>());
        case 2: return call(Count<2>());
        case 3: return call(Count<3>());
        case 4: return call(Count<4>());
        default: return call(Count<0>());
    }
}

// The same for pixels and for colours of half as many samples; where their taps go together otherwise, the latter are not
// unrolled. Nothing is where vectors are emulated: it would take a minute to compile.
template <class Call>
ALWAYS_INLINE void for_taps(int64_t taps, int64_t of_colours, const Call& call) {
    if constexpr (!HAS_PICKER) return call(Count<0>(), Count<0>());
    for_taps(taps, [&](auto count) {
        constexpr int usual = count ? count / 2 + 2 : 0;
        of_colours == usual ? call(count, Count<usual>()) : call(count, Count<0>());
    });
}

// Sum over rows: one row of `bytes` bytes (a multiple of 16, or at least 16 and then the last vector overlaps).
template <int TAPS>
ALWAYS_INLINE Floats sum_of(const uint8_t* source, int64_t step, const float* weights, int64_t taps) {
    if (TAPS) taps = TAPS;
    Floats sum = load_bytes(source) * splat(weights[0]);
    for (int64_t k = 1; k < taps; k++) sum = sum + load_bytes(source + k * step) * splat(weights[k]);
    return sum;
}

template <int TAPS>
ALWAYS_INLINE void sum_rows_of(const uint8_t* source, int64_t step, const float* weights, int64_t taps, int64_t bytes,
                               uint8_t* made) {
    for (int64_t x = 0; x < bytes; x += LANES) {
        const int64_t at = std::min(x, bytes - LANES);
        store_rounded(made + at, sum_of<TAPS>(source + at, step, weights, taps));
    }
}

ALWAYS_INLINE void sum_rows(const uint8_t* source, int64_t step, const float* weights, int64_t taps, int64_t bytes,
                            uint8_t* made) {
    for_taps(taps, [&](auto count) { sum_rows_of<count>(source, step, weights, taps, bytes, made); });
}

// As what transposed rows are kept: numbers, but for RGB's, which would not fit into the fastest cache.
template <int CHANNELS>
using Kept = std::conditional_t<CHANNELS == 3, uint8_t, float>;

ALWAYS_INLINE void keep(float* to, Bytes bytes) { store(to, floats_of(bytes)); }
ALWAYS_INLINE void keep(uint8_t* to, Bytes bytes) { *(Bytes*)to = bytes; }
ALWAYS_INLINE Floats kept(const float* from) { return load(from); }
ALWAYS_INLINE Floats kept(const uint8_t* from) { return load_bytes(from); }

// The weighted columns of 16 pixels from x on, CHANNELS * 16 vectors, from the transposed rows.
template <int CHANNELS, int TAPS>
ALWAYS_INLINE void weigh_columns(const Weights& columns, int64_t x, const Kept<CHANNELS>* square, Bytes* made) {
    const int64_t taps = TAPS ? TAPS : columns.taps;
    for (int i = 0; i < LANES; i++) {
        const float* weights = columns.weights + (x + i) * columns.stride;
        const Kept<CHANNELS>* from = square + (columns.first[x + i] - columns.begin) * CHANNELS * LANES;
        Floats sums[CHANNELS];
        for (int c = 0; c < CHANNELS; c++) sums[c] = kept(from + c * LANES) * splat(weights[0]);
        for (int64_t k = 1; k < taps; k++) {
            const Floats weight = splat(weights[k]);
            from += CHANNELS * LANES;
            for (int c = 0; c < CHANNELS; c++) sums[c] = sums[c] + kept(from + c * LANES) * weight;
        }
        for (int c = 0; c < CHANNELS; c++) store_rounded((uint8_t*)&made[i * CHANNELS + c], sums[c]);
    }
}

// Sum over columns: 16 rows of `bytes` bytes each -> 16 rows of `width` pixels, through their transpose: there a
// vector is 16 rows of one column, so that no sample must be gathered.
template <int CHANNELS>
ALWAYS_INLINE void sum_columns(const uint8_t* const* rows, int64_t begin, int64_t bytes, const Weights& columns,
                               int64_t width, float* memory, uint8_t* made, int64_t step) {
    Kept<CHANNELS>* square = (Kept<CHANNELS>*)memory;
    for (int64_t x = 0; x < bytes; x += LANES) {
        const int64_t at = std::min(x, bytes - LANES);
        Bytes tile[LANES];
        for (int i = 0; i < LANES; i++) tile[i] = *(const Bytes*)(rows[i] + begin + at);
        transpose(tile);
        for (int i = 0; i < LANES; i++) keep(square + (at + i) * LANES, tile[i]);
    }
    for_taps(columns.taps, [&](auto count) {
        Bytes tiles[CHANNELS * LANES];
        for (int64_t x = 0; x < padded(width); x += LANES) {
            weigh_columns<CHANNELS, count>(columns, x, square, tiles);
            for (int c = 0; c < CHANNELS; c++) {
                Bytes* tile = tiles + c * LANES;
                transpose(tile);
                for (int i = 0; i < LANES; i++) *(Bytes*)(made + i * step + x * CHANNELS + c * LANES) = tile[i];
            }
        }
    });
}

// 16 pixels of JPEG's YCbCr as three channels, to be rounded.
ALWAYS_INLINE void to_rgb(Floats bright, Floats blue, Floats red, Floats* rgb) {
    blue = blue + splat(-128), red = red + splat(-128);
    rgb[0] = bright + red * splat(1.402f);
    rgb[1] = bright + blue * splat(-0.344136f) + red * splat(-0.714136f);
    rgb[2] = bright + blue * splat(1.772f);
}

// How 16 columns are made of a plane's row.
struct Windows {
    static constexpr int64_t MOST_TAPS = 8;
    int64_t begin[4];  // of four columns each, from the row's first sample on
    uint8_t picks[LANES];
    float weights[MOST_TAPS * LANES];

    // False where four columns look further than 16 samples, or the row is too short to be read so
    bool set(const Weights& columns, int64_t x, int64_t left, int64_t right) {
        const int32_t* first = columns.first + x;
        for (int part = 0; part < 4; part++, first += 4) {
            const int64_t low = std::min(std::min(first[0], first[1]), std::min(first[2], first[3]));
            const int64_t start = std::min(low, right - columns.taps - LANES + 1);
            if (start < left) return false;
            for (int i = 0; i < 4; i++) {
                if (first[i] - start >= LANES) return false;
                picks[4 * part + i] = uint8_t(first[i] - start);
            }
            begin[part] = start - left;
        }
        for (int i = 0; i < LANES; i++) {
            const float* from = columns.weights + (x + i) * columns.stride;
            for (int64_t k = 0; k < columns.taps; k++) weights[k * LANES + i] = from[k];
        }
        return true;
    }
};

template <int TAPS>
ALWAYS_INLINE void pick_columns_of(const Windows& windows, int64_t taps, const uint8_t* row, int64_t step, int64_t count,
                                   uint8_t* made, int64_t made_step) {
    if (TAPS) taps = TAPS;
    const Picker picks = picker(windows.picks);
    const int64_t begin[4] = {windows.begin[0], windows.begin[1], windows.begin[2], windows.begin[3]};
    Floats weights[Windows::MOST_TAPS];
    for (int64_t k = 0; k < taps; k++) weights[k] = load(windows.weights + k * LANES);
    for (int64_t y = 0; y < count; y++, row += step, made += made_step) {
        Floats sum = pick(row, begin, picks) * weights[0];
        for (int64_t k = 1; k < taps; k++) sum = sum + pick(row + k, begin, picks) * weights[k];
        store_rounded(made, sum);
    }
}

// What sum_columns() makes of `count` rows of a plane, with the same bits and without a transpose, where that can be.
ALWAYS_INLINE bool pick_columns(const Plane& plane, int64_t top, int64_t count, const Weights& columns, int64_t width,
                                uint8_t* made, int64_t step) {
    constexpr int64_t STRIP = 128;  // rows: they stay in the first cache
    if (!HAS_PICKER || columns.taps > Windows::MOST_TAPS) return false;
    const uint8_t* row = plane.pixels + (top - plane.top) * plane.step;
    for (int64_t y = 0; y < count; y += STRIP) {
        const int64_t rows = std::min(STRIP, count - y);
        for (int64_t x = 0; x < width; x += LANES) {
            Windows windows;
            if (!windows.set(columns, x, plane.left, plane.left + plane.width)) return false;
            for_taps(columns.taps, [&](auto taps) {
                pick_columns_of<taps>(windows, columns.taps, row + y * plane.step, plane.step, rows,
                                      made + y * step + x, step);
            });
        }
    }
    return true;
}

// Where the rows of the image go.
struct Writer {
    const Target& target;
    int64_t width;
    float scale[3][LANES], shift[3][LANES];  // of 48 bytes, in which the channels take turns

    Writer(const Target& target, int64_t width) : target(target), width(width) {
        for (int i = 0; target.numbers && i < 3; i++) {
            for (int lane = 0; lane < LANES; lane++) {
                const int channel = (i * LANES + lane) % 3;
                scale[i][lane] = target.scale[channel], shift[i][lane] = target.shift[channel];
            }
        }
    }

    // 16 numbers to a place of which the target says how
    ALWAYS_INLINE void store_numbers(float* to, Floats made) const { target.stream ? stream(to, made) : store(to, made); }

    // 16 bytes -> the first `count` of them, as they are or as numbers, from place `at` of the target on
    ALWAYS_INLINE void put(int64_t at, const Bytes& bytes, int i, int64_t count) const {
        if (!target.numbers) {
            std::memcpy(target.pixels + at, &bytes, count == LANES ? LANES : count);
            return;
        }
        const Floats numbers = floats_of(bytes) * load(scale[i]) + load(shift[i]);
        if (count == LANES) return store_numbers(target.numbers + at, numbers);
        float all[LANES];
        store(all, numbers);
        std::memcpy(target.numbers + at, all, count * sizeof(float));
    }

    // Row `y` of RGB numbers, summed up over rows: rounded as bytes would be, which are not made
    template <int TAPS>
    ALWAYS_INLINE void write_sums(int64_t y, const uint8_t* source, int64_t step, const float* weights,
                                  int64_t taps) const {
        float* to = target.numbers + 3 * y * target.row;
        int64_t x = 0;
        for (int i = 0; x + LANES <= 3 * width; x += LANES, i = i == 2 ? 0 : i + 1) {
            const Floats sum = rounded<true>(sum_of<TAPS>(source + x, step, weights, taps));
            store_numbers(to + x, sum * load(scale[i]) + load(shift[i]));
        }
        if (x == 3 * width) return;
        Bytes last;
        store_rounded((uint8_t*)&last, sum_of<TAPS>(source + x, step, weights, taps));
        put(3 * y * target.row + x, last, int(x / LANES % 3), 3 * width - x);
    }

    // 16 pixels of row `y` from x on, or as many as there are
    ALWAYS_INLINE void put_pixels(int64_t y, int64_t x, const Bytes* interleaved) const {
        for (int i = 0; i < 3; i++) {
            const int64_t count = std::min<int64_t>(LANES, 3 * (width - x) - i * LANES);
            if (count > 0) put(3 * (y * target.row + x) + i * LANES, interleaved[i], i, count);
        }
    }

    // The same of planes: brightness, and colours or none. Numbers are never bytes on their way
    template <Picture::Kind KIND>
    ALWAYS_INLINE void put_planes(int64_t y, int64_t x, const Floats* planes) const {
        Floats rgb[3];
        if (KIND == Picture::YCC) {
            to_rgb(planes[0], planes[1], planes[2], rgb);
        } else {
            rgb[0] = rgb[1] = rgb[2] = planes[0];
        }
        if (target.numbers && x + LANES <= width) {
            Floats made[3];
            for (int c = 0; c < 3 && KIND == Picture::YCC; c++) rgb[c] = rounded<true>(rgb[c]);
            interleave(rgb, made);
            float* to = target.numbers + 3 * (y * target.row + x);
            for (int i = 0; i < 3; i++) store_numbers(to + i * LANES, made[i] * load(scale[i]) + load(shift[i]));
        } else {
            Bytes bytes[3], made[3];
            for (int c = 0; c < 3; c++) store_rounded((uint8_t*)&bytes[c], rgb[c]);
            interleave(bytes, made);
            put_pixels(y, x, made);
        }
    }

    // Row `y`, from bytes of RGB or of planes
    template <Picture::Kind KIND>
    ALWAYS_INLINE void write(int64_t y, const uint8_t* const* row) const {
        for (int64_t x = 0; x < width; x += LANES) {
            if (KIND == Picture::RGB) {
                Bytes pixels[3];
                for (int i = 0; i < 3; i++) pixels[i] = *(const Bytes*)(row[0] + 3 * x + i * LANES);
                put_pixels(y, x, pixels);
            } else {
                Floats planes[3];
                for (int p = 0; p < (KIND == Picture::YCC ? 3 : 1); p++) planes[p] = load_bytes(row[p] + x);
                put_planes<KIND>(y, x, planes);
            }
        }
    }
};

// The same where rows are whole vectors of numbers: nothing but the pixels changes from one to the next.
template <bool STREAM>
ALWAYS_INLINE void copy_numbers(const Job& job, const Writer& writer) {
    const Plane& plane = job.planes[0];
    Floats scale[3], shift[3];
    for (int i = 0; i < 3; i++) scale[i] = load(writer.scale[i]), shift[i] = load(writer.shift[i]);
    for (int64_t y = 0; y < job.height; y++) {
        const uint8_t* row = plane.pixels + y * plane.step;
        float* to = writer.target.numbers + 3 * y * writer.target.row;
        for (int64_t x = 0; x < job.width; x += LANES, to += 3 * LANES) {
            const Bytes* pixels = (const Bytes*)(row + 3 * (job.mirror ? job.width - LANES - x : x));
            Bytes mirrored[3];
            if (job.mirror) mirror(pixels, mirrored), pixels = mirrored;
            for (int i = 0; i < 3; i++) {
                const Floats made = load_bytes((const uint8_t*)&pixels[i]) * scale[i] + shift[i];
                STREAM ? stream(to + i * LANES, made) : store(to + i * LANES, made);
            }
        }
    }
}

// A part of an RGB photo as it is, or mirrored. Rows are copied first where a vector would read beyond their ends.
ALWAYS_INLINE void copy(const Job& job, const Writer& writer) {
    if (writer.target.numbers && job.width % LANES == 0) {
        return writer.target.stream ? copy_numbers<true>(job, writer) : copy_numbers<false>(job, writer);
    }
    const Plane& plane = job.planes[0];
    uint8_t* copied = job.last[0] + 3 * LANES;
    for (int64_t y = 0; y < job.height; y++) {
        const uint8_t* row = plane.pixels + y * plane.step;
        if (job.width % LANES) row = (uint8_t*)std::memcpy(copied, row, size_t(3 * job.width));
        const uint8_t* made = row;
        if (job.mirror) {
            uint8_t* to = (uint8_t*)job.square;
            for (int64_t x = job.width - LANES; x > -LANES; x -= LANES, to += 3 * LANES) {
                mirror((const Bytes*)(row + 3 * x), (Bytes*)to);
            }
            made = (uint8_t*)job.square;
        }
        writer.write<Picture::RGB>(y, &made);
    }
}

// Bytes of a row that are summed up; resize.cpp sees to it that there are 16.
template <int CHANNELS>
ALWAYS_INLINE int64_t bytes_of(const Weights& columns) {
    return std::max<int64_t>(LANES, (columns.end - columns.begin) * CHANNELS);
}

// The image of planes whose columns are weighed: rows are summed up, rounded as bytes would be, and written.
template <Picture::Kind KIND, int TAPS, int COLOUR_TAPS>
ALWAYS_INLINE void write_summed(const Job& job, const Writer& writer) {
    constexpr int PLANES = KIND == Picture::YCC ? 3 : 1;
    for (int64_t y = 0; y < job.height; y++) {
        const uint8_t* from[PLANES];
        const float* weights[PLANES];
        for (int p = 0; p < PLANES; p++) {
            const Weights& rows = job.rows[p > 0];
            from[p] = job.between[p] + (rows.first[y] - rows.begin) * job.step[p];
            weights[p] = rows.weights + y * rows.stride;
        }
        for (int64_t x = 0; x < job.width; x += LANES) {
            Floats planes[PLANES];
            planes[0] = rounded<true>(sum_of<TAPS>(from[0] + x, job.step[0], weights[0], job.rows[0].taps));
            for (int p = 1; p < PLANES; p++) {
                planes[p] = rounded<true>(sum_of<COLOUR_TAPS>(from[p] + x, job.step[p], weights[p], job.rows[1].taps));
            }
            writer.put_planes<KIND>(y, x, planes);
        }
    }
}

template <Picture::Kind KIND>
ALWAYS_INLINE void all_passes(const Job& job, const Writer& writer) {
    constexpr int PLANES = KIND == Picture::YCC ? 3 : 1, CHANNELS = KIND == Picture::RGB ? 3 : 1;
    const uint8_t* lines[LANES];
    for (int p = 0; p < PLANES; p++) {
        const Plane& plane = job.planes[p];
        const Weights &rows = job.rows[p > 0], &columns = job.columns[p > 0];
        const uint8_t* first = plane.pixels + (rows.begin - plane.top) * plane.step;
        const int64_t begin = (columns.begin - plane.left) * CHANNELS;
        const int64_t bytes = bytes_of<CHANNELS>(columns);
        if (job.rows_first) {
            for (int64_t y = 0; y < job.height; y++) {
                const uint8_t* source = first + (rows.first[y] - rows.begin) * plane.step + begin;
                sum_rows(source, plane.step, rows.weights + y * rows.stride, rows.taps, bytes,
                         job.between[p] + y * job.step[p]);
            }
            continue;
        }
        const int64_t count = rows.end - rows.begin;
        if (CHANNELS == 1 && pick_columns(plane, rows.begin, count, columns, job.width, job.between[p], job.step[p])) {
            continue;
        }
        for (int64_t y = 0; y < count; y += LANES) {
            for (int i = 0; i < LANES; i++) lines[i] = first + std::min(y + i, count - 1) * plane.step;
            sum_columns<CHANNELS>(lines, begin, bytes, columns, job.width, job.square,
                                  job.between[p] + y * job.step[p], job.step[p]);
        }
    }
    const uint8_t* row[3];
    const int64_t made = padded(job.width) * CHANNELS;
    if (KIND == Picture::RGB && !job.rows_first && writer.target.numbers) {
        const Weights& rows = job.rows[0];
        for_taps(rows.taps, [&](auto count) {
            for (int64_t y = 0; y < job.height; y++) {
                writer.write_sums<count>(y, job.between[0] + (rows.first[y] - rows.begin) * job.step[0], job.step[0],
                                         rows.weights + y * rows.stride, rows.taps);
            }
        });
        return;
    }
    if (KIND == Picture::GRAY && !job.rows_first) {
        return for_taps(job.rows[0].taps, [&](auto count) { write_summed<KIND, count, 1>(job, writer); });
    }
    if (KIND == Picture::YCC && !job.rows_first) {
        return for_taps(job.rows[0].taps, job.rows[1].taps,
                        [&](auto count, auto colours) { write_summed<KIND, count, colours>(job, writer); });
    }
    for (int64_t y = 0; y < job.height; y++) {
        for (int p = 0; p < PLANES; p++) {
            const Weights &rows = job.rows[p > 0], &columns = job.columns[p > 0];
            row[p] = job.last[p];
            if (!job.rows_first) {
                sum_rows(job.between[p] + (rows.first[y] - rows.begin) * job.step[p], job.step[p],
                         rows.weights + y * rows.stride, rows.taps, made, job.last[p]);
                continue;
            }
            if (y % LANES == 0) {
                for (int i = 0; i < LANES; i++) {
                    lines[i] = job.between[p] + std::min(y + i, job.height - 1) * job.step[p];
                }
                sum_columns<CHANNELS>(lines, 0, bytes_of<CHANNELS>(columns), columns, job.width, job.square,
                                      job.last[p], made);
            }
            row[p] += y % LANES * made;
        }
        writer.write<KIND>(y, row);
    }
}

}  // namespace
}  // namespace kernels

#include "enlarge.h"

namespace kernels {
namespace {

void all_passes(const Job& job, const Target& target) {
    const Writer writer(target, job.width);
    if (job.copy) return copy(job, writer);
    if (job.enlarge) return enlarge(job, writer);
    if (job.kind == Picture::RGB) return all_passes<Picture::RGB>(job, writer);
    if (job.kind == Picture::YCC) return all_passes<Picture::YCC>(job, writer);
    all_passes<Picture::GRAY>(job, writer);
}

}  // namespace
}  // namespace kernels
