//! Values that people write in a notation of their own.
//!
//! Addresses stay the text that was written, checked when it is read: what the daemon answers is
//! shown as it is.

use std::borrow::Cow;
use std::net::IpAddr;

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::base64;
use super::mirror::{Mirror, number};
use super::quantity::{format_duration, parse_duration};

/// A value that is written as text in a notation of its own.
macro_rules! text_value {
    (
        $(#[$meta:meta])*
        $name:ident($inner:ty) = $proto:ty, pattern $pattern:literal, $parse:expr, $format:expr
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $name(pub $inner);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                let parse: fn(&str) -> Result<$inner, String> = $parse;
                parse(&text).map(Self).map_err(Error::custom)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let format: fn(&$inner) -> String = $format;
                serializer.serialize_str(&format(&self.0))
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern })
            }
        }

        impl Mirror<$proto> for $name {
            fn into_proto(self) -> $proto {
                self.0
            }
            fn from_proto(proto: $proto) -> Self {
                Self(proto)
            }
        }
    };
}

text_value!(
    /// An IPv4 or IPv6 address without prefix length.
    Address(String) = String, pattern "^([0-9]{1,3}(\\.[0-9]{1,3}){3}|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*)$",
    |text| match text.parse::<IpAddr>() {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(format!("`{text}` is no IP address, such as 10.1.0.2 or fd00::2")),
    },
    Clone::clone
);

text_value!(
    /// An IPv4 or IPv6 address with prefix length.
    Cidr(String) = String, pattern "^[0-9a-fA-F:.]+/[0-9]{1,3}$",
    |text| match text.parse::<IpNet>() {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(format!("`{text}` is no address with prefix length, such as 10.1.0.0/24")),
    },
    Clone::clone
);

text_value!(
    /// A span of time in nanoseconds, written as `10s`, `1.5s`, `1m30s`, `500ms`.
    Nanos(u64) = u64, pattern "^([0-9]+(\\.[0-9]+)?(ns|us|ms|s|m|h))+$",
    parse_duration,
    |nanos| format_duration(*nanos)
);

text_value!(
    /// Permission bits in octal, written as `"0444"`.
    FileMode(u32) = u32, pattern "^[0-7]{3,5}$",
    |text| match u32::from_str_radix(text, 8) {
        Ok(mode) if (3..=5).contains(&text.len()) => Ok(mode),
        _ => Err(format!("`{text}` is no file mode: write octal digits in quotes, such as \"0444\"")),
    },
    |mode| format!("{mode:04o}")
);

text_value!(
    /// Bytes that are text, such as a JSON document.
    Text(Vec<u8>) = Vec<u8>, pattern "",
    |text| Ok(text.as_bytes().to_vec()),
    |bytes| String::from_utf8_lossy(bytes).into_owned()
);

text_value!(
    /// Bytes in base64 of RFC 4648 with padding; line ends and spaces are allowed.
    Base64(Vec<u8>) = Vec<u8>, pattern "^[A-Za-z0-9+/\\s]*(=\\s*){0,2}$",
    base64::decode,
    |bytes| base64::encode(bytes)
);

/// A port of TCP, UDP or SCTP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[schemars(with = "u16", inline)]
pub struct Port(pub u32);

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let port = u64::deserialize(deserializer)?;
        u16::try_from(port)
            .map(|port| Self(port.into()))
            .map_err(|_| Error::custom(format!("{port} is no port: 0 to 65535")))
    }
}

number!(Port(u32));
