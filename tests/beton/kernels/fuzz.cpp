// Damaged payloads for the decoders of the kernels: fuzz SEED COUNT JPEG...
//
// test_damage.py compiles this with the sanitizers, which end it at the first wrong step. Each payload is a
// valid one (the JPEGs given, and blocks made here) with random damage. It must give a code, and with GOOD a picture
// that has all of the part.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "kernels.h"

extern "C" uint64_t kernels_blocks_size(int64_t height, int64_t width);
extern "C" void kernels_encode_blocks(const uint8_t* rgb, int64_t height, int64_t width, uint8_t* data);

using namespace kernels;
using Bytes = std::vector<uint8_t>;

namespace {

struct Photo {
    Bytes bytes;
    int64_t height, width;
    bool jpeg;
};

std::mt19937_64 random_bits;

// A number of 0 ... below - 1.
int64_t any(int64_t below) {
    return below <= 0 ? 0 : static_cast<int64_t>(random_bits() % static_cast<uint64_t>(below));
}

// Where the size is in a JPEG; 0 if it is not found.
size_t find_frame(const Bytes& bytes) {
    for (size_t i = 0; i + 9 < bytes.size(); ++i) {
        int marker = bytes[i] << 8 | bytes[i + 1];
        bool frame = marker >= 0xffc0 && marker <= 0xffcf;
        if (frame && marker != 0xffc4 && marker != 0xffc8 && marker != 0xffcc) return i + 5;
    }
    return 0;
}

std::vector<size_t> find_restarts(const Bytes& bytes) {
    std::vector<size_t> found;
    for (size_t i = 0; i + 1 < bytes.size(); ++i)
        if (bytes[i] == 0xff && bytes[i + 1] >= 0xd0 && bytes[i + 1] <= 0xd7) found.push_back(i);
    return found;
}

Photo make_blocks() {
    Photo made = {{}, 1 + any(120), 1 + any(120), false};
    Bytes rgb(static_cast<size_t>(made.height * made.width * 3));
    int64_t noise = 1 + any(200);
    for (size_t i = 0; i < rgb.size(); ++i) rgb[i] = static_cast<uint8_t>(i / 97 + static_cast<size_t>(any(noise)));
    made.bytes.resize(kernels_blocks_size(made.height, made.width));
    kernels_encode_blocks(rgb.data(), made.height, made.width, made.bytes.data());
    return made;
}

// One random damage. The headers of JPEGs are hit as often as the rest.
void damage(Bytes& bytes, const Bytes& other) {
    if (bytes.empty()) return;
    int64_t size = static_cast<int64_t>(bytes.size()), near = any(2) ? size : std::min<int64_t>(size, 700);
    int64_t at = any(near);
    std::vector<size_t> restarts;
    switch (any(9)) {
        case 0:
            for (int64_t i = any(8); i >= 0; --i) bytes[static_cast<size_t>(any(near))] ^= uint8_t(1 << any(8));
            break;
        case 1:
            for (int64_t i = any(4); i >= 0; --i) bytes[static_cast<size_t>(any(near))] = uint8_t(any(256));
            break;
        case 2:
            bytes.resize(static_cast<size_t>(at));
            break;
        case 3: {  // some bytes of another payload instead of others
            int64_t from = any(static_cast<int64_t>(other.size())), length = 1 + any(200);
            int64_t gone = any(3) ? length : any(200);
            length = std::min(length, static_cast<int64_t>(other.size()) - from);
            bytes.erase(bytes.begin() + at, bytes.begin() + std::min(at + gone, size));
            bytes.insert(bytes.begin() + at, other.begin() + from, other.begin() + from + length);
            break;
        }
        case 4: {  // the length of a segment, or what follows a marker
            std::vector<size_t> markers;
            for (int64_t i = 0; i + 4 < std::min<int64_t>(size, 3000); ++i)
                if (bytes[size_t(i)] == 0xff && bytes[size_t(i) + 1] >= 0xc0) markers.push_back(size_t(i));
            if (markers.empty()) break;
            size_t marker = markers[static_cast<size_t>(any(static_cast<int64_t>(markers.size())))];
            bytes[marker + 2 + static_cast<size_t>(any(2))] = uint8_t(any(any(2) ? 256 : 4));
            if (any(4) == 0) bytes[marker + 1] = uint8_t(0xc0 + any(64));
            break;
        }
        case 5:  // a restart marker is lost
        case 6:  // or has another number, or is put elsewhere
            restarts = find_restarts(bytes);
            if (restarts.empty()) break;
            at = static_cast<int64_t>(restarts[static_cast<size_t>(any(static_cast<int64_t>(restarts.size())))]);
            if (any(2)) bytes[static_cast<size_t>(at) + 1] = uint8_t(0xd0 + any(10));
            else bytes.erase(bytes.begin() + at, bytes.begin() + at + 2);
            if (any(3) == 0) {
                const uint8_t marker[2] = {0xff, uint8_t(0xd0 + any(10))};
                bytes.insert(bytes.begin() + any(static_cast<int64_t>(bytes.size())), marker, marker + 2);
            }
            break;
        case 7: {  // a run of one value: 255 and 0 are special
            const uint8_t values[4] = {0xff, 0, uint8_t(any(256)), 0xfe};
            uint8_t value = values[any(4)];
            for (int64_t i = at; i < std::min(at + 1 + any(40), size); ++i) bytes[static_cast<size_t>(i)] = value;
            break;
        }
        default:
            break;  // nothing
    }
}

[[noreturn]] void fail(const char* what, const Photo& payload, Rect part, int shrink) {
    std::fprintf(stderr, "%s: %s of %lld x %lld, part %lld %lld %lld %lld, shrink %d\n", what,
                 payload.jpeg ? "JPEG" : "blocks", (long long)payload.height, (long long)payload.width,
                 (long long)part.top, (long long)part.left, (long long)part.height, (long long)part.width, shrink);
    std::abort();
}

// All samples are there and can be read, and the part is covered.
unsigned check(const Photo& payload, Rect part, int shrink, const Picture& picture) {
    unsigned sum = 0;
    int planes = picture.kind == Picture::YCC ? 3 : 1, channels = picture.kind == Picture::RGB ? 3 : 1;
    // Blocks are not shrunken
    if (picture.shrink != (payload.jpeg ? shrink : 0)) fail("shrink", payload, part, shrink);
    for (int i = 0; i < planes; ++i) {
        const Plane& plane = picture.planes[i];
        int64_t tall = int64_t(plane.tall) << picture.shrink, wide = int64_t(plane.wide) << picture.shrink;
        if (plane.top * tall > part.top || plane.left * wide > part.left ||
            (plane.top + plane.height) * tall < part.top + part.height ||
            (plane.left + plane.width) * wide < part.left + part.width ||
            plane.top + plane.height > plane.full_height || plane.left + plane.width > plane.full_width)
            fail("not covered", payload, part, shrink);
        for (int64_t y = 0; y < plane.height; ++y)
            for (int64_t x = 0; x < plane.width * channels; ++x) sum += plane.pixels[y * plane.step + x];
    }
    return sum;
}

}  // namespace

int main(int count, char** arguments) {
    if (count < 4) return 2;
    random_bits.seed(std::strtoull(arguments[1], nullptr, 10));
    long times = std::atol(arguments[2]);
    std::vector<Photo> payloads;
    for (int i = 3; i < count; ++i) {
        Photo payload = {{}, 0, 0, true};
        FILE* file = std::fopen(arguments[i], "rb");
        if (!file) return 2;
        for (int byte; (byte = std::fgetc(file)) != EOF;) payload.bytes.push_back(uint8_t(byte));
        std::fclose(file);
        size_t at = find_frame(payload.bytes);
        if (at == 0) return 2;
        payload.height = payload.bytes[at] << 8 | payload.bytes[at + 1];
        payload.width = payload.bytes[at + 2] << 8 | payload.bytes[at + 3];
        payloads.push_back(payload);
    }
    for (int i = count / 3; i >= 0; --i) payloads.push_back(make_blocks());

    long codes[6] = {};
    unsigned sum = 0;
    auto scratch = std::make_unique<Scratch>();
    for (long i = 0; i < times; ++i) {
        const int64_t all = static_cast<int64_t>(payloads.size());
        Photo payload = payloads[static_cast<size_t>(any(all))];
        const Bytes& other = payloads[static_cast<size_t>(any(all))].bytes;
        for (int64_t j = any(4); j >= 0; --j) damage(payload.bytes, other);
        // A damaged size may be believed
        size_t at = payload.jpeg && any(2) ? find_frame(payload.bytes) : 0;
        if (at) {
            int64_t height = payload.bytes[at] << 8 | payload.bytes[at + 1];
            int64_t width = payload.bytes[at + 2] << 8 | payload.bytes[at + 3];
            if (height * width < 1 << 24) payload.height = height, payload.width = width;
        }
        if (any(50) == 0) payload.height = any(300);
        Rect part = {any(payload.height), any(payload.width), 0, 0};
        part.height = any(3) ? 1 + any(payload.height - part.top) : std::min<int64_t>(payload.height - part.top, 16);
        part.width = any(3) ? 1 + any(payload.width - part.left) : std::min<int64_t>(payload.width - part.left, 16);
        int shrink = any(2) ? 0 : static_cast<int>(any(4));
        // Memory of exactly its size, and now and then buffers that are empty yet
        std::unique_ptr<uint8_t[]> data(new uint8_t[payload.bytes.size()]);
        std::copy(payload.bytes.begin(), payload.bytes.end(), data.get());
        if (any(16) == 0) scratch = std::make_unique<Scratch>();
        Picture picture = {};
        const Decode decode = decoder_of(payload.jpeg ? 0 : 2);
        int code = decode({data.get(), payload.bytes.size(), payload.height, payload.width}, part, shrink, *scratch,
                          picture);
        if (code < GOOD || code > DECODE_WHOLE) fail("no such code", payload, part, shrink);
        ++codes[code];
        if (code == GOOD) sum += check(payload, part, shrink, picture);
    }
    std::printf("good %ld, no JPEG %ld, other size %ld, damaged %ld, no blocks %ld, other JPEGs %ld (%u)\n",
                codes[0], codes[1], codes[2], codes[3], codes[4], codes[5], sum & 1);
    return 0;
}
