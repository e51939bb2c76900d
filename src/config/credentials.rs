//! Where buckets' credentials, endpoints and regions come from where the configuration file does not say: the
//! providers' own variables, and AWS profile files. Nothing is read for a provider that no archive uses.

use super::{AwsProfile, ConfigError, Environment, Loaded, Origin, aws_profile};
use crate::model::{Location, Provider};
use crate::secret::Secret;

/// The variables with credentials, or the way to them, and the name of each in `object_store`. The first of those with
/// one name wins.
pub(super) fn variables(provider: Provider) -> &'static [(&'static str, &'static str)] {
    match provider {
        Provider::S3 => &[
            ("AWS_ACCESS_KEY_ID", "aws_access_key_id"),
            ("AWS_SECRET_ACCESS_KEY", "aws_secret_access_key"),
            ("AWS_SESSION_TOKEN", "aws_session_token"),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", "aws_web_identity_token_file"),
            ("AWS_ROLE_ARN", "aws_role_arn"),
            ("AWS_ROLE_SESSION_NAME", "aws_role_session_name"),
            ("AWS_ENDPOINT_URL_STS", "aws_endpoint_url_sts"),
            ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "aws_container_credentials_relative_uri"),
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "aws_container_credentials_full_uri"),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "aws_container_authorization_token_file"),
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "aws_metadata_endpoint"),
        ],
        Provider::Gcs => &[
            ("GOOGLE_SERVICE_ACCOUNT", "google_service_account"),
            ("GOOGLE_SERVICE_ACCOUNT_PATH", "google_service_account"),
            ("SERVICE_ACCOUNT", "google_service_account"),
            ("GOOGLE_SERVICE_ACCOUNT_KEY", "google_service_account_key"),
            ("GOOGLE_APPLICATION_CREDENTIALS", "google_application_credentials"),
            ("GOOGLE_BEARER_TOKEN", "google_bearer_token"),
            ("GOOGLE_SKIP_SIGNATURE", "google_skip_signature"),
        ],
        Provider::Azure => &[
            ("AZURE_STORAGE_KEY", "azure_storage_account_key"),
            ("AZURE_STORAGE_ACCOUNT_KEY", "azure_storage_account_key"),
            ("AZURE_STORAGE_ACCESS_KEY", "azure_storage_account_key"),
            ("AZURE_STORAGE_SAS_TOKEN", "azure_storage_sas_token"),
            ("AZURE_STORAGE_SAS_KEY", "azure_storage_sas_token"),
            ("AZURE_STORAGE_TOKEN", "azure_storage_token"),
            ("AZURE_CLIENT_ID", "azure_client_id"),
            ("AZURE_STORAGE_CLIENT_ID", "azure_client_id"),
            ("AZURE_CLIENT_SECRET", "azure_client_secret"),
            ("AZURE_STORAGE_CLIENT_SECRET", "azure_client_secret"),
            ("AZURE_TENANT_ID", "azure_tenant_id"),
            ("AZURE_STORAGE_TENANT_ID", "azure_tenant_id"),
            ("AZURE_AUTHORITY_HOST", "azure_authority_host"),
            ("AZURE_FEDERATED_TOKEN_FILE", "azure_federated_token_file"),
            ("AZURE_OBJECT_ID", "azure_object_id"),
            ("AZURE_MSI_RESOURCE_ID", "azure_msi_resource_id"),
            ("AZURE_MSI_ENDPOINT", "azure_msi_endpoint"),
            ("IDENTITY_ENDPOINT", "azure_msi_endpoint"),
            ("AZURE_USE_AZURE_CLI", "azure_use_azure_cli"),
        ],
    }
}

/// What names an identity of AWS in the environment; a profile that our own file names goes over all of it.
const AWS_IDENTITY: [&str; 6] = [
    "aws_access_key_id",
    "aws_secret_access_key",
    "aws_session_token",
    "aws_web_identity_token_file",
    "aws_role_arn",
    "aws_role_session_name",
];

/// Whether a team's archive is in a bucket of this kind.
pub(super) fn uses(loaded: &Loaded, provider: Provider) -> bool {
    let archives = loaded.config.teams.keys().filter_map(|team| loaded.config.archive_for(team));
    archives.filter_map(Location::bucket).any(|bucket| bucket.provider == provider)
}

/// Takes over what the providers' variables and profile files say.
pub(super) fn take(loaded: &mut Loaded, environment: &Environment) -> Result<(), ConfigError> {
    for provider in [Provider::S3, Provider::Gcs, Provider::Azure] {
        if !uses(loaded, provider) {
            continue;
        }
        for (variable, _) in variables(provider) {
            if let Some(value) = environment.text(variable)? {
                loaded.config.buckets.environment.insert(variable.to_ascii_lowercase(), Secret::new(value));
            }
        }
        match provider {
            Provider::S3 => take_aws(loaded, environment)?,
            Provider::Gcs => take_first(loaded, environment, "gcs.endpoint", &["GOOGLE_BASE_URL"])?,
            Provider::Azure => {
                take_first(loaded, environment, "azure.endpoint", &["AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"])?;
                let names = ["AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME"];
                take_first(loaded, environment, "azure.account", &names)?;
                if environment.path("AZURE_STORAGE_CONNECTION_STRING").is_some() {
                    loaded.warnings.push(
                        "AZURE_STORAGE_CONNECTION_STRING is not read; set AZURE_STORAGE_ACCOUNT and AZURE_STORAGE_KEY"
                            .into(),
                    );
                }
            }
        }
    }
    Ok(())
}

/// Fills a setting that the file leaves open from the first of some variables that is set.
fn take_first(
    loaded: &mut Loaded,
    environment: &Environment,
    key: &'static str,
    variables: &[&'static str],
) -> Result<(), ConfigError> {
    let buckets = &mut loaded.config.buckets;
    let value = match key {
        "s3.endpoint" => &mut buckets.s3.endpoint,
        "s3.region" => &mut buckets.s3.region,
        "s3.profile" => &mut buckets.s3.profile,
        "gcs.endpoint" => &mut buckets.gcs.endpoint,
        "azure.endpoint" => &mut buckets.azure.endpoint,
        _ => &mut buckets.azure.account,
    };
    for variable in variables {
        if value.is_some() {
            break;
        }
        if let Some(text) = environment.text(variable)? {
            *value = Some(text.trim().to_owned());
            loaded.sources.set(key, Origin::Environment(variable));
        }
    }
    Ok(())
}

/// Settles whose keys are used, and fills region and endpoint: our file, then variables, then the profile.
fn take_aws(loaded: &mut Loaded, environment: &Environment) -> Result<(), ConfigError> {
    let is_on = |value: Option<&str>| value.is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let named_here = loaded.config.buckets.s3.profile.is_some();
    take_first(loaded, environment, "s3.profile", &["AWS_PROFILE", "AWS_DEFAULT_PROFILE"])?;
    take_first(loaded, environment, "s3.region", &["AWS_REGION", "AWS_DEFAULT_REGION"])?;
    let ignores_endpoints = is_on(environment.text("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS")?);
    if !ignores_endpoints {
        take_first(loaded, environment, "s3.endpoint", &["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])?;
    }
    let buckets = &mut loaded.config.buckets;
    let name = buckets.s3.profile.clone();
    let mut profile = aws_profile::read(name.as_deref().unwrap_or("default"), name.is_some(), environment)?;
    if named_here {
        // As with the AWS tools' own `--profile`: who names a profile means its keys.
        buckets.environment.retain(|variable, _| !AWS_IDENTITY.contains(&variable.as_str()));
    }
    let has = |variable: &str| buckets.environment.contains_key(variable);
    let (id, secret) = (has("aws_access_key_id"), has("aws_secret_access_key"));
    if id != secret {
        let (there, missing) = if id {
            ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        } else {
            ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID")
        };
        return Err(ConfigError::environment(there, format!("it is set without {missing}; set both or neither")));
    }
    if !id {
        // A token without its keys would be joined to the profile's.
        buckets.environment.remove("aws_session_token");
    }
    let has = |variable: &str| buckets.environment.contains_key(variable);
    let by_variables = id || has("aws_web_identity_token_file") && has("aws_role_arn");
    if let Some(profile) = &mut profile {
        if by_variables {
            (profile.access_key_id, profile.secret_access_key, profile.session_token) = (None, None, None);
        } else {
            check_keys(profile, &mut loaded.warnings)?;
        }
        let files: Vec<_> = profile.files.iter().map(|file| file.display().to_string()).collect();
        loaded.sources.profile = Some(format!("AWS profile {:?} in {}", profile.name, files.join(" and ")));
        if let Some(region) = profile.region.as_ref().filter(|_| buckets.s3.region.is_none()) {
            buckets.s3.region = Some(region.clone());
            loaded.sources.set("s3.region", Origin::Profile);
        }
        if let Some(endpoint) =
            profile.endpoint.as_ref().filter(|_| buckets.s3.endpoint.is_none() && !ignores_endpoints)
        {
            buckets.s3.endpoint = Some(endpoint.clone());
            loaded.sources.set("s3.endpoint", Origin::Profile);
        }
    }
    let by_profile = profile.as_ref().is_some_and(|profile| profile.access_key_id.is_some());
    let by_container = has("aws_container_credentials_relative_uri") || has("aws_container_credentials_full_uri");
    if !by_variables && !by_profile && !by_container && is_on(environment.text("AWS_EC2_METADATA_DISABLED")?) {
        return Err(ConfigError::Conflict(
            "there are no credentials for S3, and AWS_EC2_METADATA_DISABLED forbids to ask for the machine's role; set \
             AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile (`s3.profile` or AWS_PROFILE)"
                .into(),
        ));
    }
    buckets.profile = profile;
    Ok(())
}

/// Refuses a profile that has no keys but another way to some; without either, the machine's role is meant.
fn check_keys(profile: &AwsProfile, warnings: &mut Vec<String>) -> Result<(), ConfigError> {
    let Some((key, file)) = &profile.other_way else { return Ok(()) };
    let name = &profile.name;
    if profile.access_key_id.is_some() {
        warnings.push(format!(
            "the AWS profile {name:?} has keys and `{key}` ({}); the keys are used as they are, and `{key}` is not followed",
            file.display()
        ));
        return Ok(());
    }
    Err(ConfigError::File {
        path: file.clone(),
        line: None,
        key: None,
        message: format!(
            "the AWS profile {name:?} gets its credentials by `{key}`, which is not supported; give them in the \
             environment: eval \"$(aws configure export-credentials --profile {name} --format env)\", or run where the \
             machine has a role"
        ),
    })
}
