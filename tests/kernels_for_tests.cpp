// decode_jpeg for ctypes: test_kernels_jpeg.py compiles this together with pipelines/kernels/jpeg.cpp.

#include "kernels.h"

extern "C" {

kernels::Scratch* open_scratch() { return new kernels::Scratch; }

void close_scratch(kernels::Scratch* scratch) { delete scratch; }

// `about`: kind and shrink, then for each of three planes step, top, left, height, width, full_height, full_width,
// tall and wide.
int decode(const uint8_t* data, size_t size, int64_t height, int64_t width, const int64_t* part, int shrink,
           kernels::Scratch* scratch, int64_t* about, const uint8_t** pixels) {
    kernels::Picture picture = {};
    kernels::Rect rect = {part[0], part[1], part[2], part[3]};
    int code = kernels::decode_jpeg(data, size, height, width, rect, shrink, *scratch, picture);
    *about++ = picture.kind;
    *about++ = picture.shrink;
    for (const kernels::Plane& plane : picture.planes) {
        for (int64_t value : {plane.step, plane.top, plane.left, plane.height, plane.width, plane.full_height,
                              plane.full_width, int64_t(plane.tall), int64_t(plane.wide)})
            *about++ = value;
        *pixels++ = plane.pixels;
    }
    return code;
}

}  // extern "C"
