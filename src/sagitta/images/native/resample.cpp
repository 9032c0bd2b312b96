// Pillow's antialiased resize of 8-bit samples, bit for bit: one pass for each axis, rounded to 8 bits in between.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "core.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define SAGITTA_AVX2 1
#endif

namespace sagitta {

namespace {

constexpr int precision = 32 - 8 - 2;
constexpr int32_t half = 1 << (precision - 1);

double bilinear(double x) {
    x = std::fabs(x);
    return x < 1.0 ? 1.0 - x : 0.0;
}

double bicubic(double x) {
    constexpr double a = -0.5;
    x = std::fabs(x);
    if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
    return 0.0;
}

uint8_t to_byte(int32_t sum) { return uint8_t(std::clamp(sum >> precision, 0, 255)); }

void horizontal_pass(const Pixels& source, const Axis& axis, uint8_t* out, size_t stride) {
    const int channels = source.channels;
    for (int y = 0; y < source.height; y++, out += stride) {
        const uint8_t* row = source.data + size_t(y) * source.stride;
        for (size_t x = 0; x < axis.starts.size(); x++) {
            const int32_t* weights = &axis.weights[x * size_t(axis.taps)];
            for (int c = 0; c < channels; c++) {
                const uint8_t* sample = row + axis.starts[x] * channels + c;
                int32_t sum = half;
                for (int t = 0; t < axis.taps; t++) sum += sample[t * channels] * weights[t];
                out[x * size_t(channels) + size_t(c)] = to_byte(sum);
            }
        }
    }
}

void vertical_row(const uint8_t* const* rows, const Axis& axis, size_t y, size_t size, uint8_t* out) {
    const int32_t* weights = &axis.weights[y * size_t(axis.taps)];
    for (size_t x = 0; x < size; x++) {
        int32_t sum = half;
        for (int t = 0; t < axis.taps; t++) sum += rows[t][x] * weights[t];
        out[x] = to_byte(sum);
    }
}

#ifdef SAGITTA_AVX2
// Two 16-bit samples times two 16-bit halves of weights a lane; (high << 16) + low is the exact 32-bit sum.
#define AVX2 __attribute__((target("avx2")))

AVX2 inline __m256i pair(const int16_t* at) {
    int32_t both;
    std::memcpy(&both, at, 4);
    return _mm256_set1_epi32(both);
}

AVX2 inline __m256i join(__m256i low, __m256i high) {
    return _mm256_srai_epi32(_mm256_add_epi32(low, _mm256_slli_epi32(high, 16)), precision);
}

// Four rows of three channels at a time. A lane holds R, G, B of taps 0 and 1 below, of taps 2 and 3 above.
AVX2 void horizontal_rgb_avx2(const Pixels& source, const Axis& axis, uint8_t* out, size_t stride) {
    const __m256i spread = _mm256_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1,  //
                                            6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1);
    const __m256i rounding = _mm256_inserti128_si256(_mm256_setzero_si256(), _mm_set1_epi32(half), 0);
    for (int y = 0; y < source.height; y += 4) {
        const uint8_t* from[4];
        uint8_t* to[4];
        for (int i = 0; i < 4; i++) {
            const size_t row = size_t(std::min(y + i, source.height - 1));
            from[i] = source.data + row * source.stride;
            to[i] = out + row * stride;
        }
        for (size_t x = 0; x < axis.starts.size(); x++) {
            __m256i low[4] = {rounding, rounding, rounding, rounding};
            __m256i high[4] = {};
            const int start = axis.starts[x] * 3;
            for (int t = 0; t < axis.taps; t += 4) {
                const size_t at = x * size_t(axis.taps) + size_t(t);
                const __m256i lows = _mm256_blend_epi32(pair(&axis.low[at]), pair(&axis.low[at + 2]), 0xF0);
                const __m256i highs = _mm256_blend_epi32(pair(&axis.high[at]), pair(&axis.high[at + 2]), 0xF0);
                for (int i = 0; i < 4; i++) {
                    const auto* bytes = reinterpret_cast<const __m128i*>(from[i] + start + t * 3);
                    const __m256i four = _mm256_broadcastsi128_si256(_mm_loadu_si128(bytes));
                    const __m256i samples = _mm256_shuffle_epi8(four, spread);
                    low[i] = _mm256_add_epi32(low[i], _mm256_madd_epi16(samples, lows));
                    high[i] = _mm256_add_epi32(high[i], _mm256_madd_epi16(samples, highs));
                }
            }
            for (int i = 0; i < 4; i++) {
                const __m256i sum = _mm256_add_epi32(low[i], _mm256_slli_epi32(high[i], 16));
                __m128i pixel = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
                pixel = _mm_srai_epi32(pixel, precision);
                pixel = _mm_packus_epi16(_mm_packs_epi32(pixel, pixel), pixel);
                const int32_t bytes = _mm_cvtsi128_si32(pixel);
                std::memcpy(to[i] + x * 3, &bytes, 4);  // the fourth byte is overwritten by the next pixel
            }
        }
    }
}

// Sixteen samples at a time; `size` is a multiple of 16. Reads up to 16 bytes behind a row.
AVX2 void vertical_row_avx2(const uint8_t* const* rows, const Axis& axis, size_t y, size_t size, uint8_t* out) {
    const int16_t* lows = &axis.low[y * size_t(axis.taps)];
    const int16_t* highs = &axis.high[y * size_t(axis.taps)];
    for (size_t x = 0; x < size; x += 16) {
        __m256i low0 = _mm256_set1_epi32(half), low1 = low0;
        __m256i high0 = _mm256_setzero_si256(), high1 = high0;
        for (int t = 0; t < axis.taps; t += 2) {
            const __m128i a = _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[t] + x));
            const __m128i b = _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[t + 1] + x));
            const __m256i samples0 = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(a, b));
            const __m256i samples1 = _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(a, b));
            const __m256i weights_low = pair(lows + t), weights_high = pair(highs + t);
            low0 = _mm256_add_epi32(low0, _mm256_madd_epi16(samples0, weights_low));
            low1 = _mm256_add_epi32(low1, _mm256_madd_epi16(samples1, weights_low));
            high0 = _mm256_add_epi32(high0, _mm256_madd_epi16(samples0, weights_high));
            high1 = _mm256_add_epi32(high1, _mm256_madd_epi16(samples1, weights_high));
        }
        __m256i words = _mm256_packs_epi32(join(low0, high0), join(low1, high1));
        words = _mm256_permute4x64_epi64(words, 0xD8);
        const __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + x), bytes);
    }
}

bool has_avx2() { return __builtin_cpu_supports("avx2"); }
#endif

// One row of `source_channels` into one of `channels`: as it is, grey three times, or Pillow's grey of RGB.
void put_row(const uint8_t* row, size_t width, int source_channels, int channels, uint8_t* out) {
    if (source_channels == channels) {
        std::memcpy(out, row, width * size_t(channels));
    } else if (source_channels == 1) {
        for (size_t x = 0; x < width; x++) out[3 * x] = out[3 * x + 1] = out[3 * x + 2] = row[x];
    } else {
        for (size_t x = 0; x < width; x++, row += 3) {
            out[x] = uint8_t((row[0] * 19595 + row[1] * 38470 + row[2] * 7471 + 0x8000) >> 16);
        }
    }
}

}  // namespace

Axis make_axis(const AxisSpec& spec, Filter filter) {
    const double scale = (spec.to - spec.from) / spec.resized;
    const double filter_scale = std::max(scale, 1.0);
    const double support = (filter == Filter::bilinear ? 1.0 : 2.0) * filter_scale;
    const double step = 1.0 / filter_scale;
    auto centre = [&](int i) {
        const int output = spec.window + (spec.reversed ? spec.count - 1 - i : i);
        return spec.from + (output + 0.5) * scale;
    };
    Axis axis{spec.size, 0, 0, {}, {}, {}, {}};
    for (int i = 0; i < spec.count; i++) {
        const int start = std::max(0, int(centre(i) - support + 0.5));
        const int end = std::min(spec.size, int(centre(i) + support + 0.5));
        axis.starts.push_back(start);
        axis.first = std::min(axis.first, start);
        axis.end = std::max(axis.end, end);
        axis.taps = std::max(axis.taps, end - start);
    }
    axis.taps = (axis.taps + spec.group - 1) / spec.group * spec.group;
    axis.weights.assign(size_t(spec.count) * size_t(axis.taps), 0);
    std::vector<double> values(size_t(axis.taps));
    for (int i = 0; i < spec.count; i++) {
        int& start = axis.starts[size_t(i)];
        const int end = std::min(spec.size, int(centre(i) + support + 0.5));
        double sum = 0.0;
        for (int x = start; x < end; x++) {
            const double at = (x - centre(i) + 0.5) * step;
            sum += values[size_t(x - start)] = filter == Filter::bilinear ? bilinear(at) : bicubic(at);
        }
        for (int x = start; x < end; x++) {
            double value = values[size_t(x - start)];
            if (sum != 0.0) value /= sum;
            axis.weights[size_t(i) * size_t(axis.taps) + size_t(x - start)] =
                int32_t(value * (1 << precision) + (value < 0 ? -0.5 : 0.5));
        }
        start -= axis.first;
    }
    for (const int32_t weight : axis.weights) {
        const int16_t low = int16_t(uint16_t(weight));
        axis.low.push_back(low);
        axis.high.push_back(int16_t((weight - low) >> 16));
    }
    return axis;
}

namespace {

// Makes room for rows of `width` pixels, each padded to whole vectors and the last pixel's fourth byte.
Pixels room(std::vector<uint8_t>& buffer, int width, int height, int channels, size_t slack) {
    const size_t stride = size_t(width) * size_t(channels) / 16 * 16 + 32;
    const size_t size = stride * size_t(height) + slack;
    if (buffer.size() < size) buffer.resize(size);
    return {buffer.data(), stride, width, height, channels};
}

Pixels resize_across(const Pixels& source, const Axis& axis, std::vector<uint8_t>& buffer) {
    const Pixels out = room(buffer, int(axis.starts.size()), source.height, source.channels, 0);
#ifdef SAGITTA_AVX2
    if (source.channels == 3 && has_avx2()) {
        horizontal_rgb_avx2(source, axis, buffer.data(), out.stride);
        return out;
    }
#endif
    horizontal_pass(source, axis, buffer.data(), out.stride);
    return out;
}

Pixels resize_down(const Pixels& source, const Axis& axis, size_t slack, std::vector<uint8_t>& buffer) {
    const Pixels out = room(buffer, source.width, int(axis.starts.size()), source.channels, slack);
    const size_t size = size_t(source.width) * size_t(source.channels);
    std::vector<const uint8_t*> rows(size_t(axis.taps));
    for (size_t y = 0; y < axis.starts.size(); y++) {
        for (int t = 0; t < axis.taps; t++) {
            const int at = std::min(axis.starts[y] + t, source.height - 1);  // beyond it, weights are zero
            rows[size_t(t)] = source.data + size_t(at) * source.stride;
        }
        uint8_t* row = buffer.data() + y * out.stride;
#ifdef SAGITTA_AVX2
        if (source.channels == 3 && has_avx2()) {
            vertical_row_avx2(rows.data(), axis, y, out.stride - 16, row);
            continue;
        }
#endif
        vertical_row(rows.data(), axis, y, size, row);
    }
    return out;
}

}  // namespace

void Resizer::resize(const Pixels& source, const Axis& across, const Axis& down, bool down_first, int channels,
                     uint8_t* out) {
    const Pixels pixels =
        down_first ? resize_across(resize_down(source, down, slack(across), first_), across, second_)
                   : resize_down(resize_across(source, across, first_), down, 0, second_);
    for (int y = 0; y < pixels.height; y++) {
        put_row(pixels.data + size_t(y) * pixels.stride, size_t(pixels.width), pixels.channels, channels, out);
        out += size_t(pixels.width) * size_t(channels);
    }
}

}  // namespace sagitta
