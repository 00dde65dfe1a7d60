//! As much of HTTP/1.1 as a model server behind a proxy needs: requests with a
//! length or in chunks, and connections that are used again.

use std::io::{self, BufRead, BufReader, Error, ErrorKind, Read, Write};
use std::net::TcpStream;

const MAX_LINE: u64 = 16 << 10;
const MAX_BODY: usize = 64 << 20;

pub struct Request {
    pub method: String,
    pub path: String,
    pub body: Vec<u8>,
    content_type: String,
    close: bool,
}

impl Request {
    pub fn is_json(&self) -> bool {
        self.content_type.starts_with("application/json")
    }
}

pub struct Response {
    status: u16,
    content_type: &'static str,
    body: String,
}

impl Response {
    pub fn text(status: u16, body: &str) -> Self {
        let body = body.to_string();
        Self { status, content_type: "text/plain", body }
    }

    pub fn json(body: String) -> Self {
        Self { status: 200, content_type: "application/json", body }
    }
}

/// Answers requests until the client closes the connection.
pub fn converse(stream: TcpStream, answer: fn(&Request) -> Response) -> io::Result<()> {
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    while let Some(request) = read(&mut reader)? {
        let response = answer(&request);
        write!(
            writer,
            "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n{}",
            response.status,
            if response.status == 200 { "OK" } else { "Refused" },
            response.content_type,
            response.body.len(),
            response.body
        )?;
        if request.close {
            break;
        }
    }
    Ok(())
}

/// Reads a request; none when the client has closed the connection.
fn read(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
    let start = line(reader)?;
    let mut words = start.split(' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        return if start.is_empty() { Ok(None) } else { Err(bad("request line")) };
    };
    let path = target.split('?').next().unwrap_or(target).to_string();
    let mut request = Request {
        method: method.to_string(),
        path,
        body: Vec::new(),
        content_type: String::new(),
        close: false,
    };
    let (mut length, mut chunked) = (0, false);
    loop {
        let header = line(reader)?;
        if header.is_empty() {
            break;
        }
        let (name, value) = header.split_once(':').ok_or_else(|| bad("header"))?;
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().map_err(|_| bad("length"))?,
            "transfer-encoding" => chunked = value.eq_ignore_ascii_case("chunked"),
            "content-type" => request.content_type = value.to_ascii_lowercase(),
            "connection" => request.close = value.eq_ignore_ascii_case("close"),
            _ => {}
        }
    }
    if chunked {
        chunks(reader, &mut request.body)?;
    } else {
        exactly(reader, length, &mut request.body)?;
    }
    Ok(Some(request))
}

fn chunks(reader: &mut impl BufRead, body: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let size = line(reader)?;
        let size = size.split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(size, 16).map_err(|_| bad("chunk"))?;
        if size == 0 {
            while !line(reader)?.is_empty() {} // trailers
            return Ok(());
        }
        exactly(reader, size, body)?;
        line(reader)?;
    }
}

fn exactly(reader: &mut impl BufRead, length: usize, body: &mut Vec<u8>) -> io::Result<()> {
    if length > MAX_BODY - body.len() {
        return Err(bad("length"));
    }
    let whole = body.len() + length;
    reader.take(length as u64).read_to_end(body)?;
    if body.len() == whole { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) }
}

/// Reads a line without its end; an empty one at the end of the connection.
fn line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut text = String::new();
    reader.take(MAX_LINE).read_line(&mut text)?;
    if text.len() as u64 == MAX_LINE {
        return Err(bad("line"));
    }
    Ok(text.trim_end_matches(['\r', '\n']).to_string())
}

fn bad(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("a bad {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lengths_chunks_and_the_end() {
        let text = b"POST /predict?x=1 HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc\
            POST /predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n1;x\r\nf\r\n0\r\n\r\n";
        let mut reader = BufReader::new(&text[..]);
        let first = read(&mut reader).unwrap().unwrap();
        assert_eq!((first.path.as_str(), &first.body[..]), ("/predict", &b"abc"[..]));
        assert_eq!(read(&mut reader).unwrap().unwrap().body, b"def");
        assert!(read(&mut reader).unwrap().is_none());
    }

    #[test]
    fn refuses_what_is_cut_off_or_too_large() {
        for text in [
            "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab",
            "POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "nonsense\r\n\r\n",
        ] {
            assert!(read(&mut BufReader::new(text.as_bytes())).is_err(), "{text}");
        }
    }
}
