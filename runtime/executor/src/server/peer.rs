//! Who may call: root, and the members of the socket's group. The mode of the socket says the same;
//! this holds also when somebody loosened it.

use std::ffi::CString;

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use tonic::service::Interceptor;
use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Status};

#[derive(Debug, Clone)]
pub(super) struct Check {
    group: Option<Group>,
}

impl Check {
    pub(super) fn new(group: Option<Group>) -> Self {
        Self { group }
    }

    fn allows(&self, uid: u32, gid: u32) -> bool {
        if uid == 0 {
            return true;
        }
        let Some(group) = &self.group else {
            return false;
        };
        if gid == group.gid.as_raw() {
            return true;
        }
        let Ok(Some(user)) = User::from_uid(Uid::from_raw(uid)) else {
            return false;
        };
        let Ok(name) = CString::new(user.name) else {
            return false;
        };
        getgrouplist(&name, Gid::from_raw(gid)).is_ok_and(|groups| groups.contains(&group.gid))
    }
}

impl Interceptor for Check {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let peer = request
            .extensions()
            .get::<UdsConnectInfo>()
            .and_then(|info| info.peer_cred);
        match peer {
            Some(peer) if self.allows(peer.uid(), peer.gid()) => Ok(request),
            Some(peer) => Err(Status::permission_denied(format!(
                "user {} may not use this socket: only root{}",
                peer.uid(),
                self.group
                    .as_ref()
                    .map_or_else(String::new, |g| format!(" and group {}", g.name))
            ))),
            None => Err(Status::permission_denied(
                "the kernel does not say who you are",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_the_group_and_nobody_else() {
        let closed = Check::new(None);
        assert!(closed.allows(0, 0));
        assert!(!closed.allows(1, 0));
        let group = Group::from_gid(Gid::from_raw(0)).unwrap().unwrap();
        let open = Check::new(Some(group));
        assert!(open.allows(12_345, 0));
        assert!(!open.allows(12_345, 12_345));
    }
}
