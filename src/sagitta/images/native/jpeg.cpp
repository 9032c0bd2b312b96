#include "jpeg.h"

#include <algorithm>

namespace sagitta {

namespace {

constexpr int64_t max_pixels = 89'478'485;  // as in decode.py
constexpr int margin = 8;  // pixels; upsampling looks at its neighbours, and at a cut it would not find them

void leave(j_common_ptr info) { std::longjmp(reinterpret_cast<JpegErrors*>(info->err)->jump, 1); }

void leave_if_warning(j_common_ptr info, int level) {
    if (level < 0) leave(info);
}

bool is_supported(const jpeg_decompress_struct& info) {
    const bool grey = info.num_components == 1 && info.jpeg_color_space == JCS_GRAYSCALE;
    const bool colour =
        info.num_components == 3 && (info.jpeg_color_space == JCS_YCbCr || info.jpeg_color_space == JCS_RGB);
    return info.data_precision == 8 && (grey || colour) &&
           int64_t(info.image_width) * info.image_height <= max_pixels;
}

}  // namespace

JpegErrors::JpegErrors() {
    jpeg_std_error(&manager);
    manager.error_exit = leave;
    manager.emit_message = leave_if_warning;
}

// Where scans of a progressive file are missing, libjpeg smooths, each version differently.
bool is_fully_refined(const jpeg_decompress_struct& info) {
    if (!info.coef_bits) return true;
    const int* first = info.coef_bits[0];
    return std::all_of(first, first + info.num_components * DCTSIZE2, [](int missing) { return missing == 0; });
}

template <class Work> bool Decoder::guarded(Work work) {
    if (setjmp(errors_.jump)) {
        if (created_) jpeg_abort_decompress(&info_);
        return false;
    }
    return work();
}

Decoder::Decoder() {
    info_.err = &errors_.manager;
    created_ = guarded([this] {
        jpeg_create_decompress(&info_);
        return true;
    });
}

Decoder::~Decoder() {
    if (created_) jpeg_destroy_decompress(&info_);
}

bool Decoder::read_header(Bytes file) {
    return created_ && guarded([this, file] {
        jpeg_abort_decompress(&info_);
        jpeg_mem_src(&info_, file.data, file.size);
        return jpeg_read_header(&info_, TRUE) == JPEG_HEADER_OK && is_supported(info_);
    });
}

bool Decoder::open(Bytes file) {
    if (!read_layout(file, layout_) || !read_header(file)) return false;
    file_ = file;
    width_ = int(info_.image_width);
    height_ = int(info_.image_height);
    return true;
}

bool Decoder::read(Box box, int scale, size_t slack, Pixels& pixels) {
    Bytes file = file_;
    const Box narrowed = narrow(box, scale, file);
    if (file.data != file_.data && !read_header(file)) return false;
    return read_region(narrowed, scale, slack, pixels);
}

// Where restart intervals allow it, replaces `file` by one with only the tiles that the box needs; returns the box in
// the new file.
Box Decoder::narrow(Box box, int scale, Bytes& file) {
    if (layout_.tile_width == 0) return box;
    const Box needed{std::max(0, (box.left - margin) * scale), std::max(0, (box.top - margin) * scale),
                     std::min(width_, (box.right + margin) * scale), std::min(height_, (box.bottom + margin) * scale)};
    const Box held = splice(file_, layout_, needed, spliced_);
    if (held.width() == width_ && held.height() == height_) return box;
    file = {spliced_.data(), spliced_.size()};
    const int left = held.left / scale, top = held.top / scale;
    return {box.left - left, box.top - top, box.right - left, box.bottom - top};
}

bool Decoder::read_region(Box box, int scale, size_t slack, Pixels& pixels) {
    return guarded([&, this] {
        info_.scale_num = 1;
        info_.scale_denom = unsigned(scale);
        info_.out_color_space = info_.num_components == 1 ? JCS_GRAYSCALE : JCS_RGB;
        jpeg_start_decompress(&info_);
        if (!is_fully_refined(info_)) return false;
        JDIMENSION left = JDIMENSION(std::max(0, box.left - margin));
        JDIMENSION width = std::min(info_.output_width, JDIMENSION(box.right + margin)) - left;
        jpeg_crop_scanline(&info_, &left, &width);
        if (box.top > 0) jpeg_skip_scanlines(&info_, JDIMENSION(box.top));
        const size_t stride = size_t(width) * info_.output_components;
        const size_t size = stride * box.height() + slack;
        if (buffer_.size() < size) buffer_.resize(size);
        while (int(info_.output_scanline) < box.bottom) {
            JSAMPROW row = buffer_.data() + (info_.output_scanline - box.top) * stride;
            jpeg_read_scanlines(&info_, &row, 1);
        }
        const size_t offset = (box.left - left) * size_t(info_.output_components);
        pixels = {buffer_.data() + offset, stride, box.width(), box.height(), info_.output_components};
        jpeg_abort_decompress(&info_);
        return true;
    });
}

}  // namespace sagitta
