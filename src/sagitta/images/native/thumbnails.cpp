// Thumbnails: a window cut out of each decoded image, mirrored or not, as bytes or as normalised floats.
#include <cstddef>
#include <cstdint>

namespace {

struct Cut {  // thumbnails.CUT
    int64_t row;
    int32_t top, left;
    uint8_t flip;
};
static_assert(sizeof(Cut) == 24, "thumbnails.CUT has this layout");

struct Work {
    int64_t count;
    const uint8_t* images;
    int channels, height, width;  // of an image
    const Cut* cuts;
    int to_height, to_width;  // of a window
    const float *scale, *shift;  // a channel's
};

constexpr size_t cache_line = 64;

// The next image lies anywhere: it is fetched while this one is cut.
void prefetch(const uint8_t* image, size_t size) {
    for (size_t at = 0; at < size; at += cache_line) __builtin_prefetch(image + at);
}

// `change(byte, channel)` is what is written for a byte.
template <class Out, class Change> void cut_out(const Work& work, Out* out, Change change) {
    const size_t row = size_t(work.width), plane = row * size_t(work.height), size = plane * size_t(work.channels);
    for (int64_t i = 0; i < work.count; i++) {
        const Cut& cut = work.cuts[i];
        if (i + 1 < work.count) prefetch(work.images + size_t(work.cuts[i + 1].row) * size, size);
        const uint8_t* source = work.images + size_t(cut.row) * size + size_t(cut.top) * row + size_t(cut.left);
        for (int c = 0; c < work.channels; c++, source += plane) {
            const uint8_t* line = source;
            for (int y = 0; y < work.to_height; y++, line += row, out += work.to_width) {
                const uint8_t* last = line + work.to_width - 1;
                if (cut.flip)
                    for (int x = 0; x < work.to_width; x++) out[x] = change(last[-x], c);
                else
                    for (int x = 0; x < work.to_width; x++) out[x] = change(line[x], c);
            }
        }
    }
}

void cut_floats(const Work& work, float* out) {
    cut_out(work, out, [&work](uint8_t byte, int c) { return float(byte) * work.scale[c] + work.shift[c]; });
}

#if defined(__x86_64__)
__attribute__((target("avx2"), flatten)) void cut_floats_avx2(const Work& work, float* out) { cut_floats(work, out); }
#endif

}  // namespace

extern "C" {

// Writes (count, channels, to_height, to_width): bytes, or with a scale and a shift for each channel
// float(byte) * scale + shift, both operations rounded.
void sagitta_cut_out(int64_t count, const uint8_t* images, int channels, int height, int width, const void* cuts,
                     int to_height, int to_width, const float* scale, const float* shift, void* out) {
    const Work work{count,    images, channels, height, width, static_cast<const Cut*>(cuts), to_height,
                    to_width, scale,  shift};
    if (!scale) return cut_out(work, static_cast<uint8_t*>(out), [](uint8_t byte, int) { return byte; });
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) return cut_floats_avx2(work, static_cast<float*>(out));
#endif
    cut_floats(work, static_cast<float*>(out));
}
}
