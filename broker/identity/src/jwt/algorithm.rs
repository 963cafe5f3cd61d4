//! The algorithms of RFC 7518 and 8037 that are known, and nothing that signs nothing.

use ring::hmac;
use ring::signature as sig;

/// How a token is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Hs(Bits),
    Rs(Bits),
    Ps(Bits),
    Es256,
    Es384,
    EdDsa,
}

/// Of the SHA-2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bits {
    B256,
    B384,
    B512,
}

impl Algorithm {
    /// Every name that a token's header may have.
    pub(super) const NAMES: [&str; 12] = [
        "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256",
        "ES384", "EdDSA",
    ];

    pub(super) fn of_name(name: &str) -> Option<Self> {
        use Bits::{B256, B384, B512};
        Some(match name {
            "HS256" => Self::Hs(B256),
            "HS384" => Self::Hs(B384),
            "HS512" => Self::Hs(B512),
            "RS256" => Self::Rs(B256),
            "RS384" => Self::Rs(B384),
            "RS512" => Self::Rs(B512),
            "PS256" => Self::Ps(B256),
            "PS384" => Self::Ps(B384),
            "PS512" => Self::Ps(B512),
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "EdDSA" => Self::EdDsa,
            _ => return None,
        })
    }
}

/// What a signature is checked with. Which one it is decides the algorithm's family: a token that says HS256 is never
/// checked with the bytes of a public key.
#[derive(Clone)]
pub(super) enum Material {
    Secret(Box<[u8]>),
    Rsa { n: Box<[u8]>, e: Box<[u8]> },
    P256(Box<[u8]>),
    P384(Box<[u8]>),
    Ed25519(Box<[u8]>),
}

impl Material {
    /// Whether it is of the algorithm's family.
    pub(super) fn fits(&self, algorithm: Algorithm) -> bool {
        matches!(
            (self, algorithm),
            (Self::Secret(_), Algorithm::Hs(_))
                | (Self::Rsa { .. }, Algorithm::Rs(_) | Algorithm::Ps(_))
                | (Self::P256(_), Algorithm::Es256)
                | (Self::P384(_), Algorithm::Es384)
                | (Self::Ed25519(_), Algorithm::EdDsa)
        )
    }

    /// Whether it made this signature, or its other half did. Compares in constant time where there is a secret.
    pub(super) fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        let verified = match (self, algorithm) {
            (Self::Secret(secret), Algorithm::Hs(bits)) => {
                let of_bits = match bits {
                    Bits::B256 => hmac::HMAC_SHA256,
                    Bits::B384 => hmac::HMAC_SHA384,
                    Bits::B512 => hmac::HMAC_SHA512,
                };
                hmac::verify(&hmac::Key::new(of_bits, secret), message, signature)
            }
            (Self::Rsa { n, e }, Algorithm::Rs(_) | Algorithm::Ps(_)) => {
                let parameters = match algorithm {
                    Algorithm::Rs(Bits::B256) => &sig::RSA_PKCS1_2048_8192_SHA256,
                    Algorithm::Rs(Bits::B384) => &sig::RSA_PKCS1_2048_8192_SHA384,
                    Algorithm::Rs(_) => &sig::RSA_PKCS1_2048_8192_SHA512,
                    Algorithm::Ps(Bits::B256) => &sig::RSA_PSS_2048_8192_SHA256,
                    Algorithm::Ps(Bits::B384) => &sig::RSA_PSS_2048_8192_SHA384,
                    _ => &sig::RSA_PSS_2048_8192_SHA512,
                };
                sig::RsaPublicKeyComponents { n, e }.verify(parameters, message, signature)
            }
            (Self::P256(point), Algorithm::Es256) => {
                sig::UnparsedPublicKey::new(&sig::ECDSA_P256_SHA256_FIXED, point)
                    .verify(message, signature)
            }
            (Self::P384(point), Algorithm::Es384) => {
                sig::UnparsedPublicKey::new(&sig::ECDSA_P384_SHA384_FIXED, point)
                    .verify(message, signature)
            }
            (Self::Ed25519(point), Algorithm::EdDsa) => {
                sig::UnparsedPublicKey::new(&sig::ED25519, point).verify(message, signature)
            }
            _ => return false,
        };
        verified.is_ok()
    }
}

impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Secret(_) => "a secret",
            Self::Rsa { .. } => "RSA",
            Self::P256(_) => "P-256",
            Self::P384(_) => "P-384",
            Self::Ed25519(_) => "Ed25519",
        })
    }
}
