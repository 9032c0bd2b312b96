// Normalisation: float(byte) * scale + shift, both operations rounded.
#include <cstddef>
#include <cstdint>

namespace {

// `step` is a constant where this is inlined, so that its loop becomes vector instructions.
inline void plane(const uint8_t* in, int64_t pixels, int step, float scale, float shift, float* out) {
    for (int64_t p = 0; p < pixels; p++) out[p] = float(in[p * step]) * scale + shift;
}

void normalize(int64_t count, int64_t pixels, int channels, int interleaved, const uint8_t* in, const float* scale,
               const float* shift, float* out) {
    for (int64_t i = 0; i < count; i++, in += pixels * channels) {
        for (int c = 0; c < channels; c++, out += pixels) {
            const uint8_t* from = interleaved ? in + c : in + c * pixels;
            const int step = interleaved ? channels : 1;
            if (step == 1)
                plane(from, pixels, 1, scale[c], shift[c], out);
            else if (step == 3)
                plane(from, pixels, 3, scale[c], shift[c], out);
            else
                plane(from, pixels, step, scale[c], shift[c], out);
        }
    }
}

#if defined(__x86_64__)
__attribute__((target("avx2"), flatten)) void normalize_avx2(int64_t count, int64_t pixels, int channels,
                                                             int interleaved, const uint8_t* in, const float* scale,
                                                             const float* shift, float* out) {
    normalize(count, pixels, channels, interleaved, in, scale, shift, out);
}
#endif

}  // namespace

extern "C" {

// Writes (count, channels, pixels) floats for as many bytes, which are interleaved or lie channel by channel; each channel
// has its scale and shift.
void sagitta_normalize(int64_t count, int64_t pixels, int channels, int interleaved, const uint8_t* in,
                       const float* scale, const float* shift, float* out) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2"))
        return normalize_avx2(count, pixels, channels, interleaved, in, scale, shift, out);
#endif
    normalize(count, pixels, channels, interleaved, in, scale, shift, out);
}
}
