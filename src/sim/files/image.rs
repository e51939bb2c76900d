//! Images: PNG, GIF and JPEG by the shortest way that every viewer accepts.

use super::super::random::Random;

/// An RGB image of a gradient, its pixels in stored deflate blocks.
pub(super) fn png(random: &mut Random) -> Vec<u8> {
    let (width, height) = (16 + random.below(80), 8 + random.below(40));
    let (red, green) = (random.below(256), random.below(256));
    let mut pixels = Vec::new();
    for y in 0..height {
        pixels.push(0);
        for x in 0..width {
            pixels.extend([(red + x) % 256, (green + y) % 256, (x * y) % 256].map(byte));
        }
    }
    let mut header = Vec::new();
    header.extend_from_slice(&u32::try_from(width).unwrap_or(1).to_be_bytes());
    header.extend_from_slice(&u32::try_from(height).unwrap_or(1).to_be_bytes());
    header.extend_from_slice(&[8, 2, 0, 0, 0]);
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    for (name, data) in [(b"IHDR", header), (b"IDAT", zlib_stored(&pixels)), (b"IEND", Vec::new())] {
        png.extend_from_slice(&u32::try_from(data.len()).unwrap_or(0).to_be_bytes());
        let start = png.len();
        png.extend_from_slice(name);
        png.extend_from_slice(&data);
        let mut crc = flate2::Crc::new();
        crc.update(&png[start..]);
        png.extend_from_slice(&crc.sum().to_be_bytes());
    }
    png
}

/// A zlib stream (RFC 1950) of stored blocks (RFC 1951 §3.2.4).
fn zlib_stored(bytes: &[u8]) -> Vec<u8> {
    let mut stream = vec![0x78, 0x01];
    let blocks = bytes.chunks(0xffff).count();
    for (index, block) in bytes.chunks(0xffff).enumerate() {
        let length = u16::try_from(block.len()).unwrap_or(0);
        stream.push(u8::from(index + 1 == blocks));
        stream.extend_from_slice(&length.to_le_bytes());
        stream.extend_from_slice(&(!length).to_le_bytes());
        stream.extend_from_slice(block);
    }
    let (mut low, mut high) = (1_u32, 0_u32);
    for value in bytes {
        low = (low + u32::from(*value)) % 65_521;
        high = (high + low) % 65_521;
    }
    stream.extend_from_slice(&((high << 16) | low).to_be_bytes());
    stream
}

/// A GIF of 128 grays. The table is cleared so often that every code stays one byte long.
pub(super) fn gif(random: &mut Random) -> Vec<u8> {
    let (width, height) = (8 + random.below(24), 8 + random.below(24));
    let shade = random.below(128);
    let mut gif = b"GIF89a".to_vec();
    for side in [width, height] {
        gif.extend_from_slice(&[byte(side), 0]);
    }
    gif.extend_from_slice(&[0xf6, 0, 0]);
    for gray in 0..128 {
        gif.extend_from_slice(&[byte(gray * 2); 3]);
    }
    gif.extend_from_slice(&[0x2c, 0, 0, 0, 0, byte(width), 0, byte(height), 0, 0, 7]);
    let pixels: Vec<u8> = (0..width * height).map(|at| byte((shade + at) % 128)).collect();
    let mut codes = Vec::new();
    for run in pixels.chunks(100) {
        codes.push(0x80);
        codes.extend_from_slice(run);
    }
    codes.push(0x81);
    for block in codes.chunks(255) {
        gif.push(byte(block.len() as u64));
        gif.extend_from_slice(block);
    }
    gif.extend_from_slice(&[0, 0x3b]);
    gif
}

/// A gray baseline JPEG of flat 8×8 blocks: only the DC coefficient of each is coded.
pub(super) fn jpeg(random: &mut Random) -> Vec<u8> {
    let (columns, rows) = (8 + random.below(40), 8 + random.below(30));
    let mut jpeg = vec![0xff, 0xd8, 0xff, 0xe0, 0, 16];
    jpeg.extend_from_slice(b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0");
    jpeg.extend_from_slice(&[0xff, 0xdb, 0, 67, 0]);
    jpeg.extend_from_slice(&[8; 64]);
    let (height, width) = ((rows * 8).to_be_bytes(), (columns * 8).to_be_bytes());
    jpeg.extend_from_slice(&[0xff, 0xc0, 0, 11, 8, height[6], height[7], width[6], width[7], 1, 1, 0x11, 0]);
    // The DC table: the twelve categories as the twelve lowest codes of four bits.
    jpeg.extend_from_slice(&[0xff, 0xc4, 0, 31, 0x00, 0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    jpeg.extend(0..12);
    // The AC table: "end of block" alone, as the code 0.
    jpeg.extend_from_slice(&[0xff, 0xc4, 0, 20, 0x10, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    jpeg.extend_from_slice(&[0xff, 0xda, 0, 8, 1, 1, 0x00, 0, 63, 0]);
    let mut bits = Bits::default();
    let mut before = 0_i32;
    for _ in 0..columns * rows {
        let value = i32::try_from(random.below(201)).unwrap_or(0) - 100;
        let difference = value - before;
        before = value;
        let category = 32 - difference.unsigned_abs().leading_zeros();
        bits.push(category, 4);
        // ITU-T T.81 §F.1.2.1: a negative difference is coded as itself less one, in the category's low bits.
        let coded = if difference < 0 { difference - 1 } else { difference };
        bits.push(coded.cast_unsigned() & ((1 << category) - 1), category);
        bits.push(0, 1);
    }
    jpeg.extend_from_slice(&bits.finish());
    jpeg.extend_from_slice(&[0xff, 0xd9]);
    jpeg
}

/// Entropy-coded bits of a JPEG, with a zero after each 0xff.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    held: u32,
    count: u32,
}

impl Bits {
    fn push(&mut self, value: u32, count: u32) {
        self.held = (self.held << count) | value;
        self.count += count;
        while self.count >= 8 {
            self.count -= 8;
            let next = byte(u64::from(self.held >> self.count) & 0xff);
            self.bytes.push(next);
            if next == 0xff {
                self.bytes.push(0);
            }
            self.held &= (1 << self.count) - 1;
        }
    }

    fn finish(mut self) -> Vec<u8> {
        self.push(0x7f, 7);
        self.bytes
    }
}

fn byte(value: u64) -> u8 {
    u8::try_from(value & 0xff).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_png_has_right_sums_and_as_many_pixels_as_it_says() {
        for content in 0..20 {
            let png = png(&mut Random::new(1, content));
            let (mut at, mut names, mut sides) = (8, Vec::new(), (0, 0));
            while at < png.len() {
                let length = usize::try_from(u32::from_be_bytes(png[at..at + 4].try_into().unwrap())).unwrap();
                let data = &png[at + 8..at + 8 + length];
                let mut crc = flate2::Crc::new();
                crc.update(&png[at + 4..at + 8 + length]);
                assert_eq!(png[at + 8 + length..at + 12 + length], crc.sum().to_be_bytes());
                match &png[at + 4..at + 8] {
                    b"IHDR" => sides = (usize::from(data[3]), usize::from(data[7])),
                    b"IDAT" => {
                        let mut pixels = Vec::new();
                        flate2::read::ZlibDecoder::new(data).read_to_end(&mut pixels).unwrap();
                        assert_eq!(pixels.len(), (sides.0 * 3 + 1) * sides.1);
                    }
                    _ => {}
                }
                names.push(png[at + 4..at + 8].to_vec());
                at += 12 + length;
            }
            assert_eq!(names, [b"IHDR", b"IDAT", b"IEND"]);
        }
    }

    #[test]
    fn bits_are_packed_from_the_top_and_stuffed() {
        let mut bits = Bits::default();
        bits.push(0b1111, 4);
        bits.push(0b1111, 4);
        bits.push(0b101, 3);
        assert_eq!(bits.finish(), [0xff, 0x00, 0b1011_1111]);
    }
}
