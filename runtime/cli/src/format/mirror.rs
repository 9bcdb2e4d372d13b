//! How the types of the file and the messages of the contract stand for each other.
//!
//! Each struct names, field by field, where its value goes in the message. The message is built
//! without `..Default::default()`, so a field that the contract gains does not compile until the
//! file has a place for it too.

use std::collections::{BTreeMap, HashMap};

/// A value of the file, and the value of the contract that it stands for. Neither way loses anything.
pub trait Mirror<P>: Sized {
    /// The value as the contract carries it.
    fn into_proto(self) -> P;
    /// The value as the file would have it.
    fn from_proto(proto: P) -> Self;
}

macro_rules! identical {
    ($($type:ty),*) => {$(
        impl Mirror<$type> for $type {
            fn into_proto(self) -> $type {
                self
            }
            fn from_proto(proto: $type) -> Self {
                proto
            }
        }
    )*};
}

identical!(String, bool, u32, u64, i64);

impl<P, T: Mirror<P>> Mirror<Vec<P>> for Vec<T> {
    fn into_proto(self) -> Vec<P> {
        self.into_iter().map(T::into_proto).collect()
    }
    fn from_proto(proto: Vec<P>) -> Self {
        proto.into_iter().map(T::from_proto).collect()
    }
}

impl<P, T: Mirror<P>> Mirror<Option<P>> for Option<T> {
    fn into_proto(self) -> Option<P> {
        self.map(T::into_proto)
    }
    fn from_proto(proto: Option<P>) -> Self {
        proto.map(T::from_proto)
    }
}

impl Mirror<HashMap<String, String>> for BTreeMap<String, String> {
    fn into_proto(self) -> HashMap<String, String> {
        self.into_iter().collect()
    }
    fn from_proto(proto: HashMap<String, String>) -> Self {
        proto.into_iter().collect()
    }
}

/// Whether a field may be left out when it is written.
pub fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Declares a struct of the file, and how it stands for a message: `field: Type = message_field`.
/// Those under `optional` have a default and may be left out.
macro_rules! mirror {
    (
        $(#[$meta:meta])*
        pub struct $name:ident = $proto:ty {
            $( $(#[$rmeta:meta])* $rfield:ident: $rtype:ty = $rproto:ident, )*
        } optional {
            $( $(#[$ometa:meta])* $ofield:ident: $otype:ty = $oproto:ident, )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[derive(schemars::JsonSchema)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        pub struct $name {
            $( $(#[$rmeta])* pub $rfield: $rtype, )*
            $(
                $(#[$ometa])*
                #[serde(default, skip_serializing_if = "crate::format::mirror::is_default")]
                pub $ofield: $otype,
            )*
        }

        impl $name {
            /// Name in the contract, and name here, of each field.
            pub const FIELDS: &'static [(&'static str, &'static str)] = &[
                $( (stringify!($rproto), stringify!($rfield)), )*
                $( (stringify!($oproto), stringify!($ofield)), )*
            ];
        }

        impl crate::format::mirror::Mirror<$proto> for $name {
            fn into_proto(self) -> $proto {
                use crate::format::mirror::Mirror;
                type Message = $proto;
                Message {
                    $( $rproto: Mirror::into_proto(self.$rfield), )*
                    $( $oproto: Mirror::into_proto(self.$ofield), )*
                }
            }
            fn from_proto(proto: $proto) -> Self {
                use crate::format::mirror::Mirror;
                Self {
                    $( $rfield: Mirror::from_proto(proto.$rproto), )*
                    $( $ofield: Mirror::from_proto(proto.$oproto), )*
                }
            }
        }
    };
}

/// Declares an enumeration of the file. What a newer daemon may answer beyond it is shown as its
/// number; a file cannot say that.
macro_rules! choice {
    (
        $(#[$meta:meta])*
        pub enum $name:ident = $proto:ty {
            $( $(#[$vmeta:meta])* $variant:ident = $pvariant:ident, )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[derive(schemars::JsonSchema)]
        #[serde(rename_all = "camelCase")]
        pub enum $name {
            $( $(#[$vmeta])* $variant, )*
            #[serde(skip_deserializing)]
            Unknown(i32),
        }

        impl crate::format::mirror::Mirror<i32> for $name {
            fn into_proto(self) -> i32 {
                match self {
                    $( Self::$variant => <$proto>::$pvariant as i32, )*
                    Self::Unknown(number) => number,
                }
            }
            fn from_proto(number: i32) -> Self {
                match <$proto>::try_from(number) {
                    $( Ok(<$proto>::$pvariant) => Self::$variant, )*
                    #[allow(unreachable_patterns)]
                    _ => Self::Unknown(number),
                }
            }
        }
    };
}

/// Declares that a newtype over a number of the contract stands for that number.
macro_rules! number {
    ($name:ident($proto:ty)) => {
        impl crate::format::mirror::Mirror<$proto> for $name {
            fn into_proto(self) -> $proto {
                self.0
            }
            fn from_proto(proto: $proto) -> Self {
                Self(proto)
            }
        }
    };
}

pub(crate) use {choice, mirror, number};
