//! Hadoop's file system. Its client reads `core-site.xml` and `hdfs-site.xml` from `HADOOP_CONF_DIR` (name services, mounts of
//! `viewfs://`, Kerberos) and the user's name from `HADOOP_USER_NAME`.

use std::sync::Arc;

use hdfs_native_object_store::HdfsObjectStoreBuilder;
use object_store::ObjectStore;

use super::{Condition, Facts, sentence};
use crate::location::Location;

pub(super) fn build(root: &Location) -> Result<(Arc<dyn ObjectStore>, Facts), String> {
    let url = root.url().as_str().trim_end_matches('/').to_string();
    let mut builder = HdfsObjectStoreBuilder::new();
    let endpoint = if root.authority().is_empty() {
        "fs.defaultFS of Hadoop's configuration".to_string()
    } else {
        builder = builder.with_url(&url);
        url
    };
    let store = builder.build().map_err(|e| sentence(&e))?;
    let credentials = "Hadoop's own: a Kerberos ticket, or the name of the user".to_string();
    Ok((Arc::new(store), Facts { endpoint, credentials, region: None, condition: Condition::Native }))
}
