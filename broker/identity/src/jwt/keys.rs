//! Keys that tokens are checked with: from PEM, from JSON Web Keys, from a secret.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::Value;

use super::algorithm::{Algorithm, Material};

/// Keys of one source; more are not taken.
pub(super) const KEYS_MAX: usize = 64;
/// Bits of an RSA modulus; with fewer, somebody else may have the private half.
const RSA_BYTES_MIN: usize = 2_048 / 8;
/// A shorter secret can be guessed from a token.
const SECRET_BYTES_MIN: usize = 32;

/// A key and what it is for.
#[derive(Debug, Clone)]
pub(super) struct Key {
    id: Option<Box<str>>,
    /// The one algorithm that it may be used with, where it says.
    algorithm: Option<Algorithm>,
    material: Material,
}

impl Key {
    /// Whether a token that names this key and says it is signed like this may be checked with it.
    pub(super) fn is_for(&self, id: Option<&str>, algorithm: Algorithm) -> bool {
        let named = match (&self.id, id) {
            (Some(own), Some(id)) => **own == *id,
            _ => true,
        };
        named && self.algorithm.is_none_or(|own| own == algorithm) && self.material.fits(algorithm)
    }

    pub(super) fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        self.material.verifies(algorithm, message, signature)
    }

    fn of(material: Material) -> Self {
        Self {
            id: None,
            algorithm: None,
            material,
        }
    }
}

/// A secret that the issuer shares with us.
pub(super) fn secret(secret: &[u8]) -> Result<Key, String> {
    if secret.len() < SECRET_BYTES_MIN {
        return Err(format!(
            "a secret of {} bytes; one of less than {SECRET_BYTES_MIN} can be guessed from a token",
            secret.len()
        ));
    }
    Ok(Key::of(Material::Secret(secret.into())))
}

/// The keys of a local file: PEM, a JSON Web Key, or a set of these.
pub(super) fn of_file(text: &str) -> Result<Vec<Key>, String> {
    if text.trim_start().starts_with('{') {
        return of_json(text, true);
    }
    of_pem(text)
}

/// The keys of a JSON Web Key Set, or a single one. What is not understood is passed over, as RFC 7517 has it: keys of another
/// kind may stand there for others. Secrets are taken from local files alone.
pub(super) fn of_json(text: &str, is_local: bool) -> Result<Vec<Key>, String> {
    let json: Value = serde_json::from_str(text).map_err(|error| format!("no JSON ({error})"))?;
    let one = [json.clone()];
    let all = match json.get("keys") {
        Some(Value::Array(all)) => &all[..],
        Some(_) => return Err("\"keys\" is no list".to_owned()),
        None if json.get("kty").is_some() => &one[..],
        None => return Err("neither a JSON Web Key nor a set of them".to_owned()),
    };
    let keys: Vec<Key> = all
        .iter()
        .filter_map(|jwk| of_jwk(jwk, is_local))
        .take(KEYS_MAX)
        .collect();
    if keys.is_empty() {
        return Err("no key that can be used is in it".to_owned());
    }
    Ok(keys)
}

fn of_jwk(jwk: &Value, is_local: bool) -> Option<Key> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
    if text("use").is_some_and(|purpose| purpose != "sig") {
        return None;
    }
    let material = match (text("kty")?, text("crv")) {
        ("RSA", _) => rsa(&bytes("n")?, &bytes("e")?)?,
        ("EC", Some("P-256")) => Material::P256(point(&bytes("x")?, &bytes("y")?, 32)?),
        ("EC", Some("P-384")) => Material::P384(point(&bytes("x")?, &bytes("y")?, 48)?),
        ("OKP", Some("Ed25519")) => Material::Ed25519(of_length(&bytes("x")?, 32)?),
        ("oct", _) if is_local => secret(&bytes("k")?).ok()?.material,
        _ => return None,
    };
    let algorithm = match text("alg") {
        Some(name) => Some(Algorithm::of_name(name)?),
        None => None,
    };
    Some(Key {
        id: text("kid").map(Box::from),
        algorithm,
        material,
    })
}

fn of_length(bytes: &[u8], length: usize) -> Option<Box<[u8]>> {
    (bytes.len() == length).then(|| bytes.into())
}

/// An uncompressed point.
fn point(x: &[u8], y: &[u8], length: usize) -> Option<Box<[u8]>> {
    let fits = x.len() == length && y.len() == length;
    fits.then(|| [&[4], x, y].concat().into())
}

fn rsa(n: &[u8], e: &[u8]) -> Option<Material> {
    let without_zeros = |bytes: &[u8]| -> Box<[u8]> {
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        bytes[zeros..].into()
    };
    let (n, e) = (without_zeros(n), without_zeros(e));
    (n.len() >= RSA_BYTES_MIN && !e.is_empty()).then_some(Material::Rsa { n, e })
}

fn of_pem(text: &str) -> Result<Vec<Key>, String> {
    let mut keys = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("-----BEGIN ") {
        rest = &rest[at + "-----BEGIN ".len()..];
        let (kind, body) = rest
            .split_once("-----")
            .ok_or("a PEM block without an end of its first line")?;
        let end = format!("-----END {kind}-----");
        let (body, behind) = body
            .split_once(end.as_str())
            .ok_or("a PEM block without its last line")?;
        rest = behind;
        let body: String = body.split_whitespace().collect();
        let der = STANDARD
            .decode(body)
            .map_err(|_| "a PEM block that is no base64")?;
        let material = match kind {
            "PUBLIC KEY" => of_spki(&der),
            "RSA PUBLIC KEY" => of_pkcs1(&der),
            kind if kind.contains("PRIVATE") => {
                return Err("a private key: give it the public half alone".to_owned());
            }
            "CERTIFICATE" => {
                return Err(
                    "a certificate: `openssl x509 -pubkey -noout` takes the key out of it"
                        .to_owned(),
                );
            }
            _ => None,
        };
        keys.push(Key::of(material.ok_or_else(|| {
            "a key that is neither RSA of 2048 bits or more, P-256, P-384 nor Ed25519".to_owned()
        })?));
    }
    if keys.is_empty() {
        return Err("neither PEM nor a JSON Web Key".to_owned());
    }
    keys.truncate(KEYS_MAX);
    Ok(keys)
}

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OBJECT: u8 = 0x06;
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];

/// The content of the DER element of that tag at the beginning, which is taken off.
fn take<'a>(der: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let (&[own, first], rest) = der.split_first_chunk::<2>()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x83 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let add = |sum: usize, byte: &u8| sum << 8 | usize::from(*byte);
            (bytes.iter().fold(0, add), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    *der = rest;
    (own == tag).then_some(content)
}

/// A SubjectPublicKeyInfo (RFC 5280).
fn of_spki(mut der: &[u8]) -> Option<Material> {
    let mut spki = take(&mut der, SEQUENCE)?;
    let mut kind = take(&mut spki, SEQUENCE)?;
    let (&unused, key) = take(&mut spki, BIT_STRING)?.split_first()?;
    if unused != 0 {
        return None;
    }
    match take(&mut kind, OBJECT)? {
        RSA => of_pkcs1(key),
        EC => match take(&mut kind, OBJECT)? {
            P256 if key.len() == 65 && key[0] == 4 => Some(Material::P256(key.into())),
            P384 if key.len() == 97 && key[0] == 4 => Some(Material::P384(key.into())),
            _ => None,
        },
        ED25519 => of_length(key, 32).map(Material::Ed25519),
        _ => None,
    }
}

fn of_pkcs1(mut der: &[u8]) -> Option<Material> {
    let mut key = take(&mut der, SEQUENCE)?;
    rsa(take(&mut key, INTEGER)?, take(&mut key, INTEGER)?)
}

/// The two numbers of a P-256 key.
#[cfg(test)]
pub(super) fn coordinates(key: &Key) -> (&[u8], &[u8]) {
    match &key.material {
        Material::P256(point) => point[1..].split_at(32),
        other => panic!("no P-256: {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_used_is_refused_in_words() {
        for (text, said) in [
            ("", "neither PEM"),
            ("{", "no JSON"),
            ("{}", "neither a JSON Web Key"),
            (r#"{"keys":7}"#, "no list"),
            (r#"{"keys":[]}"#, "no key that can be used"),
            (
                r#"{"keys":[{"kty":"EC","crv":"P-521","x":"","y":""}]}"#,
                "no key that can be used",
            ),
            (r#"{"kty":"oct","k":"c2hvcnQ"}"#, "no key that can be used"),
            (
                r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#,
                "no key that can be used",
            ),
            ("-----BEGIN PUBLIC KEY-----", "last line"),
            (
                "-----BEGIN PUBLIC KEY-----\n!\n-----END PUBLIC KEY-----",
                "base64",
            ),
            (
                "-----BEGIN PUBLIC KEY-----\nMAA=\n-----END PUBLIC KEY-----",
                "neither RSA",
            ),
            (
                "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----",
                "private",
            ),
            (
                "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----",
                "openssl x509",
            ),
        ] {
            let error = of_file(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
        assert!(secret(&[b'x'; 31]).is_err() && secret(&[b'x'; 32]).is_ok());
    }

    #[test]
    fn secrets_come_from_local_files_alone() {
        let k = URL_SAFE_NO_PAD.encode([b'x'; 32]);
        let text = format!(r#"{{"kty":"oct","k":"{k}"}}"#);
        assert_eq!(of_json(&text, true).unwrap().len(), 1);
        assert!(of_json(&text, false).is_err());
    }

    #[test]
    fn a_der_element_never_reads_beyond_its_end() {
        let spki = [SEQUENCE, 0x82, 0x01];
        for bytes in [
            &spki[..],
            &[SEQUENCE],
            &[SEQUENCE, 5, 1],
            &[SEQUENCE, 0x84, 1, 1, 1, 1],
        ] {
            assert_eq!(take(&mut &*bytes, SEQUENCE), None);
        }
        let mut two = &[INTEGER, 1, 7, INTEGER, 0][..];
        assert_eq!(take(&mut two, INTEGER), Some(&[7][..]));
        assert_eq!(take(&mut two, INTEGER), Some(&[][..]));
        assert_eq!(take(&mut two, INTEGER), None);
    }
}
