// A part of a decoded photo -> one image of the batch: resized, converted to RGB, mirrored, normalised.
//
// Each pixel of the result is a weighted mean over columns of weighted means over rows, or the other way round, in
// float32; bytes lie between the two, as in Pillow, and in its order. The weights are made in
// weights.cpp; passes.h and enlarge.h use them.
//
// Colour planes are not interpolated to the size of the brightness plane first: the weights of the colour samples are
// those of the pixels, handed on through libjpeg's triangle filter ("fancy upsampling").
#include <algorithm>
#include <cstring>

#include "resize.h"

namespace kernels {
namespace {

// Whether columns are not shrunk and few rows are added up, in their order: enlarge.h has a faster way then.
bool enlarges(const Job& job, const Crop& crop, int planes) {
    if (job.rows_first || crop.top < 0 || crop.top + crop.height > crop.rows) return false;
    for (int p = 0; p < std::min(planes, 2); p++) {
        if (!job.columns[p].starts || job.rows[p].taps > FEW_TAPS) return false;
    }
    return true;
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
    const int64_t square = LANES * int64_t(sizeof(float));  // for each byte of a row
    const int64_t ring = FEW_TAPS * padded(job.width) * channels * int64_t(sizeof(float)), line = widest + 2 * LANES;
    grow(scratch.bytes[3], total + widest * square + planes * ring + line);
    uint8_t* at = scratch.bytes[3].data();
    job.square = (float*)at, at += widest * square;
    job.line = at, at += line;
    for (int p = 0; p < planes; p++) job.ring[p] = (float*)at, at += ring;
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
    job.square = (float*)scratch.bytes[3].data(), job.last[0] = scratch.bytes[3].data() + bytes;
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
        make_weights({axes[0], plane.tall, triangle && plane.tall == 2, plane.full_height, padded(crop.height), 0},
                     job.rows[0], scratch, 2 * p, job.rows[p]);
        make_weights({axes[1], plane.wide, triangle && plane.wide == 2, plane.full_width, padded(crop.width), channels},
                     job.columns[0], scratch, 2 * p + 1, job.columns[p]);
    }
    // Pillow 13 begins with the rows where that leaves much less to do
    const int64_t fewer_rows = int64_t(axes[0].length) - crop.rows;
    const int64_t fewer_columns = int64_t(axes[1].length) - crop.columns;
    job.rows_first = fewer_rows > 0 && fewer_rows > 2 * fewer_columns;
    job.enlarge = enlarges(job, crop, planes), job.clamp = crop.filter == BICUBIC;
    lay_out(job, picture, planes, channels, scratch);
    passes()(job, target);
}

}  // namespace kernels
