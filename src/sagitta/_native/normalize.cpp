// Normalisation: each byte becomes the float that its channel's table holds for it.
#include <cstddef>
#include <cstdint>

extern "C" {

// Writes (count, channels, pixels) floats for as many bytes, which are interleaved or lie channel by channel. `table` is
// (channels, 256).
void sagitta_normalize(int64_t count, int64_t pixels, int channels, int interleaved, const uint8_t* in,
                       const float* table, float* out) {
    for (int64_t i = 0; i < count; i++, in += pixels * channels) {
        for (int c = 0; c < channels; c++, out += pixels) {
            const uint8_t* from = interleaved ? in + c : in + c * pixels;
            const int64_t step = interleaved ? channels : 1;
            const float* values = table + 256 * c;
            for (int64_t p = 0; p < pixels; p++) out[p] = values[from[p * step]];
        }
    }
}
}
