// Pixels -> blocks: see blocks.h for the format.
#include "blocks.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace kernels {
namespace {

// Blocks are encoded side by side, GROUP of them, each in its own lane of the CPU's vectors.
constexpr int GROUP = 8;

// The samples of a plane, padded to whole groups.
struct Samples {
    int64_t step;
    std::vector<uint8_t> values;
    explicit Samples(const Grid& grid)
        : step(ceil_div(grid.columns, GROUP) * GROUP * WIDE), values(size_t(grid.rows * HIGH * step)) {}
    uint8_t* row(int64_t y) { return values.data() + y * step; }

    void pad(const Grid& grid) {
        for (int64_t y = 0; y < grid.height; ++y)
            std::memset(row(y) + grid.width, row(y)[grid.width - 1], size_t(step - grid.width));
        for (int64_t y = grid.height; y < grid.rows * HIGH; ++y)
            std::memcpy(row(y), row(grid.height - 1), size_t(step));
    }
};

constexpr int fixed(double x) { return int(x * 65536 + (x < 0 ? -0.5 : 0.5)); }

FOR_EACH_CPU void split(const uint8_t* __restrict rgb, int64_t width, uint8_t* __restrict red,
                        uint8_t* __restrict green, uint8_t* __restrict blue) {
    for (int64_t x = 0; x < width; ++x) {
        red[x] = rgb[3 * x];
        green[x] = rgb[3 * x + 1];
        blue[x] = rgb[3 * x + 2];
    }
}

FOR_EACH_CPU void to_luma(const uint8_t* __restrict red, const uint8_t* __restrict green,
                          const uint8_t* __restrict blue, int64_t width, uint8_t* __restrict luma) {
    for (int64_t x = 0; x < width; ++x)
        luma[x] = uint8_t((fixed(.299) * red[x] + fixed(.587) * green[x] + fixed(.114) * blue[x] + 32768) >> 16);
}

// The colour of 2 x 2 pixels, from two rows of each channel; `lower` is added to get from one row to the other.
FOR_EACH_CPU void to_colour(const uint8_t* __restrict red, const uint8_t* __restrict green,
                            const uint8_t* __restrict blue, int64_t lower, int64_t width, uint8_t* __restrict cb,
                            uint8_t* __restrict cr) {
    constexpr int half = (128 << 18) + (1 << 17);
    for (int64_t x = 0; x < width; ++x) {
        int r = red[2 * x] + red[2 * x + 1] + red[2 * x + lower] + red[2 * x + lower + 1];
        int g = green[2 * x] + green[2 * x + 1] + green[2 * x + lower] + green[2 * x + lower + 1];
        int b = blue[2 * x] + blue[2 * x + 1] + blue[2 * x + lower] + blue[2 * x + lower + 1];
        int u = (fixed(-.168735892) * r + fixed(-.331264108) * g + fixed(.5) * b + half) >> 18;
        int v = (fixed(.5) * r + fixed(-.418687589) * g + fixed(-.081312411) * b + half) >> 18;
        cb[x] = uint8_t(std::min(u, 255));
        cr[x] = uint8_t(std::min(v, 255));
    }
}

void to_planes(const uint8_t* rgb, int64_t height, int64_t width, const Grids& grids, Samples* planes) {
    int64_t even = (width + 1) / 2 * 2;
    std::vector<uint8_t> channels(size_t(6 * even));
    uint8_t *red = channels.data(), *green = red + 2 * even, *blue = green + 2 * even;
    for (int64_t y = 0; y < height; y += 2) {
        for (int64_t i = 0; i < 2; ++i) {
            int64_t from = std::min(y + i, height - 1);
            uint8_t* rows[3] = {red + i * even, green + i * even, blue + i * even};
            split(rgb + from * width * 3, width, rows[0], rows[1], rows[2]);
            for (uint8_t* row : rows) row[even - 1] = row[width - 1];
            to_luma(rows[0], rows[1], rows[2], width, planes[0].row(from));
        }
        to_colour(red, green, blue, even, even / 2, planes[1].row(y / 2), planes[2].row(y / 2));
    }
    for (int i = 0; i < 3; ++i) planes[i].pad(grids.planes[i]);
}

// A group of blocks, sample by sample, and what is least and greatest in each.
struct Group {
    uint8_t values[SAMPLES][GROUP], least[GROUP], most[GROUP];
};

typedef uint8_t Bytes __attribute__((vector_size(16)));

void gather(const uint8_t* row, int64_t step, Group& group) {
    static_assert(GROUP == 8 && WIDE == 8, "three times");
    Bytes low = Bytes{} + 255, high = {};
    for (int y = 0; y < HIGH; ++y) {
        Bytes from[4], to[4];
        std::memcpy(from, row + y * step, sizeof from);
        for (int times = 0; times < 3; ++times) {  // deal out the two halves alternately: after three times
            for (int i = 0; i < 2; ++i) {          // what was a byte in a block is the block
                const Bytes one = from[i], other = from[i + 2];
                to[2 * i] = SHUFFLE(one, other, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
                to[2 * i + 1] = SHUFFLE(one, other, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
            }
            std::memcpy(from, to, sizeof from);
        }
        std::memcpy(group.values[y * WIDE], to, sizeof to);
        for (const Bytes& bytes : to) {
            low = bytes < low ? bytes : low;
            high = bytes > high ? bytes : high;
        }
    }
    for (int n = 0; n < GROUP; ++n) {
        group.least[n] = std::min(low[n], low[n + GROUP]);
        group.most[n] = std::max(high[n], high[n + GROUP]);
    }
}

// The steps "blocks of this range get one bit more than this depth", those that gain most first.
struct Upgrade {
    int64_t gain;
    uint8_t range, depth;
};

// The error of a block of range r at a depth is about ERROR[depth] * (r^2 - last_index^2): so measured on photos,
// and nothing where every value has an index.
std::vector<Upgrade> make_upgrades() {
    constexpr int64_t ERROR[DEEPEST + 1] = {1111614, 172294, 42335, 11413, 3009, 783, 220, 55, 0};
    std::vector<Upgrade> all;
    for (int range = 1; range < 256; ++range) {
        int64_t gain = INT64_MAX;
        for (int depth = 0; last_index(depth) < range; ++depth) {
            auto error = [&](int d) {
                return last_index(d) < range ? ERROR[d] * (range * range - last_index(d) * last_index(d)) : 0;
            };
            gain = std::min(gain, error(depth) - error(depth + 1));  // not before the depth is reached
            all.push_back({gain, uint8_t(range), uint8_t(depth)});
        }
    }
    std::stable_sort(all.begin(), all.end(), [](const Upgrade& a, const Upgrade& b) { return a.gain > b.gain; });
    return all;
}

// The depth of each block, from the ranges.
std::vector<uint8_t> choose_depths(const std::vector<uint8_t>& ranges, int64_t bits) {
    static const std::vector<Upgrade> upgrades = make_upgrades();
    int64_t blocks_of[256] = {};
    for (uint8_t range : ranges) ++blocks_of[range];

    uint8_t depth_of[256] = {};
    int last = -1;  // the range whose first `bits` blocks get one bit more
    for (const Upgrade& upgrade : upgrades) {
        if (blocks_of[upgrade.range] > bits) {
            last = upgrade.range;
            break;
        }
        bits -= blocks_of[upgrade.range];
        depth_of[upgrade.range] = uint8_t(upgrade.depth + 1);
    }
    std::vector<uint8_t> depths(ranges.size());
    for (size_t i = 0; i < ranges.size(); ++i) {
        depths[i] = depth_of[ranges[i]];
        if (ranges[i] == last && bits > 0) {
            ++depths[i];
            --bits;
        }
    }
    return depths;
}

// One number for each block of a group.
typedef int32_t Ints __attribute__((vector_size(4 * GROUP)));
typedef float Floats __attribute__((vector_size(4 * GROUP)));

#define INTS(x) __builtin_convertvector(x, Ints)
#define FLOATS(x) __builtin_convertvector(x, Floats)

ALWAYS_INLINE void clamp(Ints& x, const Ints& least, const Ints& most) {
    x = x < least ? least : x;
    x = x > most ? most : x;
}

ALWAYS_INLINE void widen(const uint8_t* from, int count, Ints* to) {
    int32_t* numbers = (int32_t*)to;
    for (int n = 0; n < count * GROUP; ++n) numbers[n] = from[n];
}

// How the values of a group become indices. As float, all numbers but `scale` are whole and exact.
struct Line {
    Ints low, span, last;
    Floats stride, scale;

    ALWAYS_INLINE void set(const Ints& new_low, const Ints& new_span, const Ints& factor) {
        low = new_low;
        span = new_span;
        stride = FLOATS((span * factor + 128) >> 8);
        scale = 256.f / (stride < 1.f ? Floats{} + 1.f : stride);
    }
    // The nearest index.
    ALWAYS_INLINE void index_of(const Ints& value, Ints& index) const {
        index = INTS(FLOATS(value - low) * scale + .5f);
        clamp(index, Ints{}, last);
    }
};

// Encode `count` blocks of a group.
FOR_EACH_CPU uint8_t* encode_group(const Group& group, const uint8_t* depths, int64_t count, uint8_t* out) {
    Ints values[SAMPLES], least, most, depth, factor;
    widen(group.values[0], SAMPLES, values);
    widen(group.least, 1, &least);
    widen(group.most, 1, &most);
    widen(depths, 1, &depth);
    for (int n = 0; n < GROUP; ++n) factor[n] = FACTOR[depths[n]];

    // From the least value to the greatest, or without loss.
    Line line, better;
    line.last = ((Ints{} + 1) << depth) - 1;
    Ints span = most - least;
    clamp(span, line.last, Ints{} + 255);
    line.set(least, span, factor);
    Floats v = {}, vv = {}, i = {}, ii = {}, iv = {};  // sums over the values (less `least`) and indices
    for (const Ints& value : values) {
        Ints rounded;
        line.index_of(value, rounded);
        Floats index = FLOATS(rounded), above = FLOATS(value - least);
        v += above;
        vv += above * above;
        i += index;
        ii += index * index;
        iv += index * above;
    }
    // Least squares. To do it again with the indices of the better line gains nothing that counts.
    Floats divisor = float(SAMPLES) * ii - i * i;
    Floats slope = (float(SAMPLES) * iv - i * v) / divisor;
    Floats first = (v - slope * i) * (1.f / SAMPLES) + FLOATS(least);
    Floats end = first + slope * FLOATS(line.last);
    Ints lossy = (most - least > line.last) & (divisor > 0.f);
    first = lossy ? first : Floats{};  // elsewhere it may be infinite
    end = lossy ? end : Floats{};
    Ints low = INTS(first + .5f), high = INTS(end + .5f);
    clamp(low, Ints{}, Ints{} + 254);
    clamp(high, low + 1, Ints{} + 255);
    better.set(low, high - low, factor);

    // The error of both with these indices; in whole numbers, the better line need not be better.
    Floats s = line.stride * (1 / 256.f), error = vv - 2.f * s * iv + s * s * ii;
    Floats t = better.stride * (1 / 256.f), d = FLOATS(low - least);
    Floats other = vv - 2.f * t * iv + t * t * ii - 2.f * d * v + 2.f * t * d * i + float(SAMPLES) * d * d;
    Ints choose = lossy & (other < error);
    line.low = choose ? better.low : line.low;
    line.span = choose ? better.span : line.span;
    line.scale = choose ? better.scale : line.scale;

    alignas(64) Ints halves[2 * HIGH];  // of rows of indices
    for (int half = 0; half < 2 * HIGH; ++half) {
        halves[half] = Ints{};
        for (int k = 0; k < WIDE / 2; ++k) {
            Ints index;
            line.index_of(values[half * WIDE / 2 + k], index);
            halves[half] |= index << k * depth;
        }
    }
    for (int n = 0; n < count; ++n) {
        out[0] = uint8_t(depths[n] ? line.low[n] : least[n] + int(v[n] + SAMPLES / 2) / SAMPLES);
        out[1] = uint8_t(line.span[n]);
        for (int y = 0; y < HIGH; ++y) {
            uint64_t word = uint32_t(halves[2 * y][n]) | uint64_t(uint32_t(halves[2 * y + 1][n])) << 4 * depths[n];
            std::memcpy(out + 2 + y * depths[n], &word, 8);  // zeros follow it, or the next row
        }
        out += 2 + 4 * depths[n];
    }
    return out;
}

}  // namespace
}  // namespace kernels

// Bytes of a photo stored as blocks.
EXPORTED uint64_t kernels_blocks_size(int64_t height, int64_t width) {
    return uint64_t(kernels::Grids(height, width).size);
}

// Store RGB pixels (height x width x 3, interleaved, rows without gaps) as kernels_blocks_size(height, width) bytes.
EXPORTED void kernels_encode_blocks(const uint8_t* rgb, int64_t height, int64_t width, uint8_t* data) {
    using namespace kernels;
    Grids grids(height, width);
    Samples planes[3] = {Samples(grids.planes[0]), Samples(grids.planes[1]), Samples(grids.planes[2])};
    to_planes(rgb, height, width, grids, planes);

    std::vector<Group> groups;
    std::vector<uint8_t> ranges;
    groups.reserve(size_t(grids.blocks / GROUP + grids.rows));
    ranges.reserve(size_t(grids.blocks));
    for (int i = 0; i < 3; ++i)
        for (int64_t y = 0; y < grids.planes[i].rows; ++y)
            for (int64_t x = 0; x < grids.planes[i].columns; x += GROUP) {
                groups.emplace_back();
                Group& group = groups.back();
                gather(planes[i].row(y * HIGH) + x * WIDE, planes[i].step, group);
                for (int64_t n = 0; n < std::min<int64_t>(GROUP, grids.planes[i].columns - x); ++n)
                    ranges.push_back(uint8_t(group.most[n] - group.least[n]));
            }
    std::vector<uint8_t> depths = choose_depths(ranges, (BYTES - 2) * grids.blocks / 4);

    std::memset(data, 0, size_t(grids.size));
    uint8_t* out = data + 4 * grids.rows;
    const uint8_t* depth = depths.data();
    const Group* group = groups.data();
    for (const Grid& grid : grids.planes)
        for (int64_t y = 0; y < grid.rows; ++y) {
            uint8_t* entry = data + 4 * (grid.first_row + y);
            for (int k = 0; k < 4; ++k) entry[k] = uint8_t((out - data) >> 8 * k);
            for (int64_t x = 0; x < grid.columns; ++x) out[x / 2] = uint8_t(out[x / 2] | depth[x] << (x % 2 * 4));
            out += grid.depths();
            for (int64_t x = 0; x < grid.columns; x += GROUP) {
                int64_t count = std::min<int64_t>(GROUP, grid.columns - x);
                uint8_t of_group[GROUP] = {};
                std::memcpy(of_group, depth, size_t(count));
                out = encode_group(*group++, of_group, count, out);
                depth += count;
            }
        }
}
