//! Real little files: each opens in the program that its type belongs to. Written with the least code, stored and not
//! compressed, so that the bytes (and so the sizes in dumps) never change with a library.

use std::fmt::Write as _;

use super::content::Kind;
use super::random::Random;

mod image;

const WORDS: &[&str] = &[
    "delivery",
    "order",
    "harbour",
    "pallet",
    "invoice",
    "schedule",
    "anchor",
    "paint",
    "timber",
    "crane",
    "berth",
    "inspection",
    "valve",
    "payment",
    "contract",
    "meeting",
    "engine",
    "survey",
    "quote",
    "warehouse",
    "manifest",
    "customs",
    "repair",
    "season",
    "customer",
    "shipment",
    "drawing",
    "revision",
    "sample",
    "report",
];

/// Makes file number `content` of a kind.
pub(super) fn make(kind: Kind, seed: u64, content: u64) -> Vec<u8> {
    let mut random = Random::new(seed ^ 0xf11e, super::random::mix2(content, kind as u64));
    match kind {
        // Noise has its own maker; a file of it would be empty.
        Kind::Plain => Vec::new(),
        Kind::Pdf => pdf(&mut random, content),
        Kind::Png => image::png(&mut random),
        Kind::Jpeg => image::jpeg(&mut random),
        Kind::Gif => image::gif(&mut random),
        Kind::Docx => docx(&mut random),
        Kind::Xlsx => xlsx(&mut random),
        Kind::Zip => zip(&[
            ("readme.txt", text(&mut random, 3).as_bytes()),
            ("drawings/plan.svg", svg(&mut random).as_bytes()),
            ("data/list.csv", csv(&mut random).as_bytes()),
        ]),
        Kind::Csv => csv(&mut random).into_bytes(),
        Kind::Text => text(&mut random, 6).into_bytes(),
        Kind::Eml => eml(&mut random, content).into_bytes(),
        Kind::Ics => ics(&mut random, content).into_bytes(),
        Kind::Svg => svg(&mut random).into_bytes(),
        Kind::Html => format!(
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{0}</title></head>\n<body><h1>{0}</h1>\
             <p>{1}</p></body></html>\n",
            random.pick(WORDS),
            text(&mut random, 4).trim_end()
        )
        .into_bytes(),
    }
}

/// Some lines of words.
fn text(random: &mut Random, lines: u64) -> String {
    let mut text = String::new();
    for _ in 0..lines + random.below(lines * 2) {
        for index in 0..6 + random.below(8) {
            let _ = write!(text, "{}{}", if index == 0 { "" } else { " " }, random.pick(WORDS));
        }
        text.push_str(".\n");
    }
    text
}

fn pdf(random: &mut Random, content: u64) -> Vec<u8> {
    let mut page = format!("BT /F1 18 Tf 72 770 Td (Document {content}) Tj /F1 11 Tf 0 -30 Td 14 TL\n");
    for line in text(random, 10).lines() {
        let _ = writeln!(page, "({line}) Tj T*");
    }
    page.push_str("ET\n");
    let objects = [
        "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>".to_owned(),
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> >>"
            .to_owned(),
        format!("<< /Length {} >>\nstream\n{page}endstream", page.len()),
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>".to_owned(),
    ];
    let mut pdf = "%PDF-1.4\n".to_owned();
    let mut offsets = Vec::new();
    for (index, object) in objects.iter().enumerate() {
        offsets.push(pdf.len());
        let _ = write!(pdf, "{} 0 obj\n{object}\nendobj\n", index + 1);
    }
    let table = pdf.len();
    let _ = write!(pdf, "xref\n0 {}\n0000000000 65535 f \n", objects.len() + 1);
    for offset in offsets {
        let _ = writeln!(pdf, "{offset:010} 00000 n ");
    }
    let _ = write!(pdf, "trailer\n<< /Size {} /Root 1 0 R >>\nstartxref\n{table}\n%%EOF\n", objects.len() + 1);
    pdf.into_bytes()
}

fn docx(random: &mut Random) -> Vec<u8> {
    let mut body = String::new();
    for line in text(random, 8).lines() {
        let _ = write!(body, "<w:p><w:r><w:t>{line}</w:t></w:r></w:p>");
    }
    let document = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?><w:document \
         xmlns:w=\"http://schemas.openxmlformats.org/wordprocessingml/2006/main\"><w:body>{body}</w:body></w:document>"
    );
    let main = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml";
    zip(&[
        ("[Content_Types].xml", content_types(&[("/word/document.xml", main)]).as_bytes()),
        ("_rels/.rels", relations("officeDocument", "word/document.xml").as_bytes()),
        ("word/document.xml", document.as_bytes()),
    ])
}

fn xlsx(random: &mut Random) -> Vec<u8> {
    let mut rows = String::new();
    for row in 1..=8 + random.below(24) {
        let (item, amount) = (random.pick(WORDS), random.below(100_000));
        let _ = write!(
            rows,
            "<row r=\"{row}\"><c r=\"A{row}\" t=\"inlineStr\"><is><t>{item}</t></is></c><c r=\"B{row}\"><v>{amount}</v></c></row>"
        );
    }
    let spreadsheet = "http://schemas.openxmlformats.org/spreadsheetml/2006/main";
    let head = "<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?>";
    let sheet = format!("{head}<worksheet xmlns=\"{spreadsheet}\"><sheetData>{rows}</sheetData></worksheet>");
    let book = format!(
        "{head}<workbook xmlns=\"{spreadsheet}\" \
         xmlns:r=\"http://schemas.openxmlformats.org/officeDocument/2006/relationships\"><sheets><sheet name=\"List\" \
         sheetId=\"1\" r:id=\"rId1\"/></sheets></workbook>"
    );
    let types = content_types(&[
        ("/xl/workbook.xml", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"),
        ("/xl/worksheets/sheet1.xml", "application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml"),
    ]);
    zip(&[
        ("[Content_Types].xml", types.as_bytes()),
        ("_rels/.rels", relations("officeDocument", "xl/workbook.xml").as_bytes()),
        ("xl/workbook.xml", book.as_bytes()),
        ("xl/_rels/workbook.xml.rels", relations("worksheet", "worksheets/sheet1.xml").as_bytes()),
        ("xl/worksheets/sheet1.xml", sheet.as_bytes()),
    ])
}

fn content_types(parts: &[(&str, &str)]) -> String {
    let mut xml = "<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?><Types \
                   xmlns=\"http://schemas.openxmlformats.org/package/2006/content-types\"><Default Extension=\"rels\" \
                   ContentType=\"application/vnd.openxmlformats-package.relationships+xml\"/><Default Extension=\"xml\" \
                   ContentType=\"application/xml\"/>"
        .to_owned();
    for (part, media_type) in parts {
        let _ = write!(xml, "<Override PartName=\"{part}\" ContentType=\"{media_type}\"/>");
    }
    xml.push_str("</Types>");
    xml
}

fn relations(kind: &str, target: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?><Relationships \
         xmlns=\"http://schemas.openxmlformats.org/package/2006/relationships\"><Relationship Id=\"rId1\" \
         Type=\"http://schemas.openxmlformats.org/officeDocument/2006/relationships/{kind}\" Target=\"{target}\"/>\
         </Relationships>"
    )
}

/// A ZIP archive with its files stored as they are.
fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes();
    let short = |value: usize| u16::try_from(value).unwrap_or(u16::MAX).to_le_bytes();
    let (mut zip, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in files {
        let offset = zip.len();
        let mut crc = flate2::Crc::new();
        crc.update(bytes);
        // Version 2.0, UTF-8 names, stored, 2026-09-01 08:00, then sums and lengths: the part both headers share.
        let mut shared = vec![20, 0, 0, 8, 0, 0, 0x00, 0x40, 0x21, 0x5d];
        shared.extend_from_slice(&crc.sum().to_le_bytes());
        shared.extend_from_slice(&number(bytes.len()));
        shared.extend_from_slice(&number(bytes.len()));
        shared.extend_from_slice(&short(name.len()));
        shared.extend_from_slice(&[0, 0]);
        zip.extend_from_slice(b"PK\x03\x04");
        zip.extend_from_slice(&shared);
        zip.extend_from_slice(name.as_bytes());
        zip.extend_from_slice(bytes);
        directory.extend_from_slice(b"PK\x01\x02\x14\x00");
        directory.extend_from_slice(&shared);
        directory.extend_from_slice(&[0; 10]);
        directory.extend_from_slice(&number(offset));
        directory.extend_from_slice(name.as_bytes());
    }
    let offset = zip.len();
    zip.extend_from_slice(&directory);
    zip.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    zip.extend_from_slice(&short(files.len()));
    zip.extend_from_slice(&short(files.len()));
    zip.extend_from_slice(&number(directory.len()));
    zip.extend_from_slice(&number(offset));
    zip.extend_from_slice(&[0, 0]);
    zip
}

fn csv(random: &mut Random) -> String {
    let mut csv = "item,quantity,price,note\r\n".to_owned();
    for _ in 0..10 + random.below(60) {
        let (item, note) = (random.pick(WORDS), random.pick(WORDS));
        let _ = write!(csv, "{item},{},{}.50,\"{note}, urgent\"\r\n", random.below(90), random.below(500));
    }
    csv
}

fn eml(random: &mut Random, content: u64) -> String {
    format!(
        "From: Orders <orders@northpier.example>\r\nTo: team@harbour.example\r\nSubject: Forwarded: {} {}\r\n\
         Date: Tue, 01 Sep 2026 08:00:00 +0000\r\nMessage-ID: <{content}@northpier.example>\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=utf-8\r\n\r\n{}",
        random.pick(WORDS),
        random.pick(WORDS),
        text(random, 4).replace('\n', "\r\n")
    )
}

fn ics(random: &mut Random, content: u64) -> String {
    let day = 1 + random.below(28);
    format!(
        "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//harbour.example//calendar//EN\r\nMETHOD:REQUEST\r\nBEGIN:VEVENT\r\n\
         UID:{content}@harbour.example\r\nDTSTAMP:20260901T080000Z\r\nDTSTART:202610{day:02}T090000Z\r\n\
         DTEND:202610{day:02}T100000Z\r\nSUMMARY:{} {}\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n",
        random.pick(WORDS),
        random.pick(WORDS)
    )
}

fn svg(random: &mut Random) -> String {
    let mut svg = "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 200 200\">\n".to_owned();
    for _ in 0..4 + random.below(12) {
        let (x, y, size, hue) = (random.below(160), random.below(160), 5 + random.below(40), random.below(360));
        let _ = writeln!(
            svg,
            "  <rect x=\"{x}\" y=\"{y}\" width=\"{size}\" height=\"{size}\" fill=\"hsl({hue}, 60%, 50%)\"/>"
        );
    }
    svg.push_str("</svg>\n");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(kind: Kind) -> impl Iterator<Item = Vec<u8>> {
        (0..5).map(move |content| make(kind, 1, content))
    }

    fn word(bytes: &[u8], at: usize) -> usize {
        usize::try_from(u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())).unwrap()
    }

    #[test]
    fn files_are_the_same_each_time_and_differ_from_each_other() {
        for (kind, code, _) in &super::super::content::KINDS[1..] {
            assert_eq!(make(*kind, 1, 3), make(*kind, 1, 3), "{code}");
            assert_ne!(make(*kind, 1, 3), make(*kind, 1, 4), "{code}");
            assert_ne!(make(*kind, 1, 3), make(*kind, 2, 3), "{code}");
        }
    }

    #[test]
    fn the_offsets_of_a_pdf_point_at_its_objects() {
        for bytes in all(Kind::Pdf) {
            let pdf = String::from_utf8(bytes).unwrap();
            let table: usize = pdf.rsplit("startxref\n").next().unwrap().lines().next().unwrap().parse().unwrap();
            let rows: Vec<_> = pdf[table..].lines().collect();
            assert_eq!(rows[..2], ["xref", "0 6"]);
            for (index, row) in rows[3..8].iter().enumerate() {
                assert_eq!(row.len() + 1, 20, "PDF 1.4 §3.4.3: an entry is 20 bytes");
                let offset: usize = row[..10].parse().unwrap();
                assert!(pdf[offset..].starts_with(&format!("{} 0 obj", index + 1)));
            }
            let (_, stream) = pdf.split_once("stream\n").unwrap();
            let (page, _) = stream.split_once("endstream").unwrap();
            assert!(pdf.contains(&format!("/Length {} ", page.len())));
        }
    }

    #[test]
    fn the_directory_of_a_zip_leads_to_every_file() {
        for bytes in all(Kind::Zip).chain(all(Kind::Docx)).chain(all(Kind::Xlsx)) {
            let end = bytes.len() - 22;
            assert_eq!(&bytes[end..end + 4], b"PK\x05\x06");
            let (count, mut at) = (usize::from(bytes[end + 10]), word(&bytes, end + 16));
            assert_eq!(at + word(&bytes, end + 12), end);
            for _ in 0..count {
                assert_eq!(&bytes[at..at + 4], b"PK\x01\x02");
                let (crc, size, name) = (word(&bytes, at + 16), word(&bytes, at + 24), usize::from(bytes[at + 28]));
                let local = word(&bytes, at + 42);
                assert_eq!(&bytes[local..local + 4], b"PK\x03\x04");
                assert_eq!(bytes[local + 30..local + 30 + name], bytes[at + 46..at + 46 + name]);
                let mut sum = flate2::Crc::new();
                sum.update(&bytes[local + 30 + name..local + 30 + name + size]);
                assert_eq!(usize::try_from(sum.sum()).unwrap(), crc);
                at += 46 + name;
            }
            assert_eq!(at, end);
        }
    }
}
