//! What comes: frames, in pieces of any size. The payload of data frames is passed on as it comes.

use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use crate::bounds::{CONTROL_BYTES_MAX, FRAME_BYTES_MAX, HEAD_BYTES_MAX};
use crate::end::{End, Violation};
use crate::mask::apply_mask;

/// Where in the stream of frames it is.
#[derive(Debug)]
pub(crate) struct Input {
    /// Bytes of the payload of the data frame under way that are still to come.
    left: u32,
    /// Bytes of the message under way, up to the end of the frame under way.
    message: u32,
    /// The mask of the frame under way, from its next byte on.
    mask: [u8; 4],
    /// The beginning of a header whose rest has not come yet.
    head: [u8; HEAD_BYTES_MAX],
    head_len: u8,
    /// Whether the other side masks: it is a client.
    is_masked: bool,
    /// A message has begun whose last frame has not.
    is_fragmented: bool,
    /// The control frame under way.
    control: Option<Box<ControlFrame>>,
}

/// A control frame, or as much of it as has come.
#[derive(Debug)]
pub(crate) struct ControlFrame {
    opcode: Control,
    payload: [u8; CONTROL_BYTES_MAX],
    /// How much of the payload has come.
    len: usize,
    /// How much will.
    whole: usize,
}

impl Input {
    pub(crate) fn new(is_masked: bool) -> Self {
        Self {
            left: 0,
            message: 0,
            mask: [0; 4],
            head: [0; HEAD_BYTES_MAX],
            head_len: 0,
            is_masked,
            is_fragmented: false,
            control: None,
        }
    }

    /// Takes all of `wire`, whose memory it may work in. The payload of data frames goes to `up`, the latest ping to `ping`.
    /// The end of the connection, if that is in it; what is behind the end is thrown away.
    pub(crate) fn take(
        &mut self,
        wire: &mut [u8],
        up: &mut Vec<u8>,
        ping: &mut Option<Box<ControlFrame>>,
    ) -> Option<End> {
        let mut at = 0;
        while at < wire.len() {
            if self.left > 0 {
                let len = (wire.len() - at).min(self.left as usize);
                let payload = &mut wire[at..at + len];
                self.unmask(payload);
                up.extend_from_slice(payload);
                at += len;
                self.left -= len as u32;
                continue;
            }
            let taken = match self.control.take() {
                Some(control) => self.take_control(control, &wire[at..], ping),
                None => self.take_head(&wire[at..], ping),
            };
            match taken {
                Ok(taken) => at += taken,
                Err(end) => return Some(end),
            }
        }
        None
    }

    /// Takes a frame's header, or as much of it as is there: how many bytes.
    fn take_head(
        &mut self,
        wire: &[u8],
        ping: &mut Option<Box<ControlFrame>>,
    ) -> Result<usize, End> {
        let before = usize::from(self.head_len);
        let (header, length, taken) = if before == 0
            && let Some(parsed) = parse(wire)?
        {
            parsed
        } else {
            let len = wire.len().min(HEAD_BYTES_MAX - before);
            self.head[before..before + len].copy_from_slice(&wire[..len]);
            let Some((header, length, whole)) = parse(&self.head[..before + len])? else {
                self.head_len = (before + len) as u8;
                return Ok(len);
            };
            self.head_len = 0;
            (header, length, whole - before)
        };
        match self.begin(&header, length)? {
            // One without payload is whole.
            Some(control) if length == 0 => self.take_control(control, &[], ping)?,
            control => {
                self.control = control;
                0
            }
        };
        Ok(taken)
    }

    /// Begins with a frame: the control frame that it is, if it is one.
    fn begin(
        &mut self,
        header: &FrameHeader,
        length: u64,
    ) -> Result<Option<Box<ControlFrame>>, Violation> {
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(Violation::ReservedBits);
        }
        match header.mask {
            Some(_) if !self.is_masked => return Err(Violation::Masked),
            None if self.is_masked => return Err(Violation::NotMasked),
            mask => self.mask = mask.unwrap_or_default(),
        }
        if length >= 1 << 63 {
            return Err(Violation::Length);
        }
        let before = match header.opcode {
            OpCode::Control(opcode) => return control(opcode, header, length).map(Some),
            OpCode::Data(Data::Text) => return Err(Violation::Text),
            OpCode::Data(Data::Continue) if !self.is_fragmented => {
                return Err(Violation::Continuation);
            }
            OpCode::Data(Data::Continue) => self.message,
            OpCode::Data(_) if self.is_fragmented => return Err(Violation::Interleaved),
            OpCode::Data(_) => 0,
        };
        let length = u32::try_from(length).map_err(|_| Violation::TooLarge)?;
        let message = before
            .checked_add(length)
            .filter(|all| *all <= FRAME_BYTES_MAX);
        self.message = message.ok_or(Violation::TooLarge)?;
        self.left = length;
        self.is_fragmented = !header.is_final;
        Ok(None)
    }

    /// Takes the payload of a control frame, or as much of it as is there: how many bytes. Does what it asks for when it is
    /// whole.
    fn take_control(
        &mut self,
        mut control: Box<ControlFrame>,
        wire: &[u8],
        ping: &mut Option<Box<ControlFrame>>,
    ) -> Result<usize, End> {
        let taken = wire.len().min(control.whole - control.len);
        let place = &mut control.payload[control.len..control.len + taken];
        place.copy_from_slice(&wire[..taken]);
        self.unmask(place);
        control.len += taken;
        if control.len < control.whole {
            self.control = Some(control);
            return Ok(taken);
        }
        match control.opcode {
            Control::Ping => *ping = Some(control),
            Control::Close => return Err(closed(control.payload())),
            // An answer to no question of ours, which is allowed (RFC 6455, 5.5.3).
            Control::Pong | Control::Reserved(_) => {}
        }
        Ok(taken)
    }

    /// Takes the mask from the next bytes of the frame under way.
    fn unmask(&mut self, bytes: &mut [u8]) {
        if self.is_masked {
            self.mask = apply_mask(bytes, self.mask);
        }
    }
}

impl ControlFrame {
    /// What has come of its payload.
    pub(crate) fn payload(&self) -> &[u8] {
        &self.payload[..self.len]
    }
}

/// A control frame of which the header has come.
fn control(
    opcode: Control,
    header: &FrameHeader,
    length: u64,
) -> Result<Box<ControlFrame>, Violation> {
    if !header.is_final {
        return Err(Violation::FragmentedControl);
    }
    if length > CONTROL_BYTES_MAX as u64 {
        return Err(Violation::LongControl);
    }
    Ok(Box::new(ControlFrame {
        opcode,
        payload: [0; CONTROL_BYTES_MAX],
        len: 0,
        whole: length as usize,
    }))
}

/// What a close frame says.
fn closed(payload: &[u8]) -> End {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return match payload {
            [] => End::Closed(None),
            _ => End::Broken(Violation::CloseCode),
        };
    };
    let code = u16::from_be_bytes(*code);
    if !CloseCode::from(code).is_allowed() {
        End::Broken(Violation::CloseCode)
    } else if std::str::from_utf8(reason).is_err() {
        End::Broken(Violation::CloseReason)
    } else {
        End::Closed(Some(code))
    }
}

/// A frame's header, the length of its payload and its own, if all of it is there.
fn parse(bytes: &[u8]) -> Result<Option<(FrameHeader, u64, usize)>, Violation> {
    let mut cursor = Cursor::new(bytes);
    match FrameHeader::parse(&mut cursor) {
        Ok(header) => {
            Ok(header.map(|(header, length)| (header, length, cursor.position() as usize)))
        }
        // Nothing else is wrong with a header by itself.
        Err(_) => Err(Violation::Opcode),
    }
}
