// Lossless rewriting of a JPEG with restart intervals that form a grid.
#include <algorithm>
#include <cstring>
#include <new>

#include "jpeg.h"

namespace sagitta {

namespace {

constexpr unsigned least_width = 32;  // pixels; narrower tiles cost more bytes than they save time

struct Reader {
    JpegErrors errors;
    jpeg_decompress_struct info{};
    jvirt_barray_ptr* coefficients = nullptr;
    Reader() { info.err = &errors.manager; }
    ~Reader() { jpeg_destroy_decompress(&info); }
};

struct Writer {
    JpegErrors errors;
    jpeg_compress_struct info{};
    jpeg_destination_mgr target{};
    std::vector<uint8_t>& out;
    explicit Writer(std::vector<uint8_t>& bytes) : out(bytes) {
        info.err = &errors.manager;
        info.client_data = this;
        target.init_destination = [](j_compress_ptr info) { grow(info, 1 << 16); };
        target.empty_output_buffer = [](j_compress_ptr info) {
            grow(info, static_cast<Writer*>(info->client_data)->out.size());
            return boolean(TRUE);
        };
        target.term_destination = [](j_compress_ptr info) {
            auto& out = static_cast<Writer*>(info->client_data)->out;
            out.resize(out.size() - info->dest->free_in_buffer);
        };
    }
    ~Writer() { jpeg_destroy_compress(&info); }

    static void grow(j_compress_ptr info, size_t more) {
        auto& out = static_cast<Writer*>(info->client_data)->out;
        const size_t used = out.size();
        bool grown = true;
        try {
            out.resize(used + more);
        } catch (const std::bad_alloc&) {
            grown = false;
        }
        if (!grown) ERREXIT1(info, JERR_OUT_OF_MEMORY, 0);
        info->dest->next_output_byte = out.data() + used;
        info->dest->free_in_buffer = more;
    }
};

bool is_marker(const jpeg_marker_struct* marker, int code, const char* name, unsigned length) {
    return marker->marker == code && marker->data_length >= length && !std::memcmp(marker->data, name, length);
}

bool read_coefficients(Reader& reader, Bytes file, bool with_markers) {
    if (setjmp(reader.errors.jump)) return false;
    jpeg_create_decompress(&reader.info);
    if (with_markers) {
        jpeg_save_markers(&reader.info, JPEG_COM, 0xFFFF);
        for (int i = 0; i < 16; i++) jpeg_save_markers(&reader.info, JPEG_APP0 + i, 0xFFFF);
    }
    jpeg_mem_src(&reader.info, file.data, file.size);
    if (jpeg_read_header(&reader.info, TRUE) != JPEG_HEADER_OK || reader.info.data_precision != 8) return false;
    reader.coefficients = jpeg_read_coefficients(&reader.info);
    return is_fully_refined(reader.info);
}

// What lies behind EOI means something to somebody: a video, a depth map, a camera's own notes.
bool ends_with_picture(const jpeg_decompress_struct& info) { return info.src->bytes_in_buffer == 0; }

// A second picture behind the first is found by offsets, which would no longer be right.
bool has_second_picture(const jpeg_decompress_struct& info) {
    for (auto* marker = info.marker_list; marker; marker = marker->next) {
        if (is_marker(marker, JPEG_APP0 + 2, "MPF", 4)) return true;
    }
    return false;
}

// MCUs of an interval: the fewest that divide a row evenly and are at least `least_width` pixels wide.
unsigned tile_columns(const jpeg_decompress_struct& info) {
    const unsigned mcu = unsigned(info.num_components == 1 ? 1 : info.max_h_samp_factor) * DCTSIZE;
    const unsigned columns = (info.image_width + mcu - 1) / mcu;
    unsigned interval = std::min(columns, (least_width + mcu - 1) / mcu);
    while (columns % interval) interval++;
    return interval;
}

bool write(Writer& writer, Reader& reader) {
    if (setjmp(writer.errors.jump)) return false;
    jpeg_create_compress(&writer.info);
    writer.info.dest = &writer.target;
    jpeg_copy_critical_parameters(&reader.info, &writer.info);
    writer.info.optimize_coding = TRUE;
    // All are written below, as they were and in their order: EXIF may come before JFIF, or without it.
    writer.info.write_JFIF_header = writer.info.write_Adobe_marker = FALSE;
    writer.info.restart_interval = tile_columns(reader.info);
    jpeg_write_coefficients(&writer.info, reader.coefficients);
    for (auto* marker = reader.info.marker_list; marker; marker = marker->next) {
        jpeg_write_marker(&writer.info, marker->marker, marker->data, marker->data_length);
    }
    jpeg_finish_compress(&writer.info);
    return true;
}

bool same_blocks(Reader& a, Reader& b, int component) {
    const jpeg_component_info& left = a.info.comp_info[component];
    const jpeg_component_info& right = b.info.comp_info[component];
    if (left.width_in_blocks != right.width_in_blocks || left.height_in_blocks != right.height_in_blocks ||
        std::memcmp(left.quant_table->quantval, right.quant_table->quantval, sizeof left.quant_table->quantval)) {
        return false;
    }
    for (JDIMENSION y = 0; y < left.height_in_blocks; y++) {
        auto from = [&](Reader& reader) {
            auto* common = reinterpret_cast<j_common_ptr>(&reader.info);
            return reader.info.mem->access_virt_barray(common, reader.coefficients[component], y, 1, FALSE)[0];
        };
        if (std::memcmp(from(a), from(b), left.width_in_blocks * sizeof(JBLOCK))) return false;
    }
    return true;
}

bool same_coefficients(Reader& source, Bytes copy) {
    Reader reader;
    if (!read_coefficients(reader, copy, false)) return false;
    if (setjmp(reader.errors.jump)) return false;
    if (setjmp(source.errors.jump)) return false;
    bool same = source.info.num_components == reader.info.num_components &&
                source.info.jpeg_color_space == reader.info.jpeg_color_space;
    for (int i = 0; same && i < source.info.num_components; i++) same = same_blocks(source, reader, i);
    return same;
}

}  // namespace

bool add_restart_markers(Bytes file, std::vector<uint8_t>& out) {
    Layout layout;
    if (!read_layout(file, layout)) return false;
    Reader reader;
    Writer writer(out);
    return read_coefficients(reader, file, true) && reader.info.num_components <= 3 &&
           ends_with_picture(reader.info) && !has_second_picture(reader.info) && write(writer, reader) &&
           same_coefficients(reader, {out.data(), out.size()});
}

}  // namespace sagitta
