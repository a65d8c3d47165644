/**
 * A transaction id counts for one device and one endpoint with all of its path: what is stored is that path.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#transaction-identifiers
 */
export function transactionKey(path: readonly string[]): string {
  return path.map(encodeURIComponent).join("/");
}

/** The transaction id as the client gave it: the path's last part. */
export function transactionIdOf(key: string): string {
  return decodeURIComponent(key.slice(key.lastIndexOf("/") + 1));
}
