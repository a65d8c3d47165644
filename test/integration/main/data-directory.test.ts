import { mkdtemp, readdir, rm, stat, writeFile } from "node:fs/promises";
import { X509Certificate, createPrivateKey } from "node:crypto";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { lockDataDir } from "../../../src/main/data-dir-lock.ts";
import { findOperatorToken, loadOperatorToken } from "../../../src/main/operator-token.ts";
import { processIdentity } from "../../../src/main/process-identity.ts";
import { readRunning, removeRunning, writeRunning } from "../../../src/main/running-file.ts";
import { readOrCreateSecretFile } from "../../../src/main/secret-file.ts";
import { loadSigningKey, parseSigningKey } from "../../../src/main/signing-key.ts";
import { loadFederationCertificate } from "../../../src/main/tls.ts";
import { signJson, verifyJsonSignature } from "../../../src/matrix/signatures.ts";

describe("the data directory", () => {
  let dataDir: string;
  const modeOf = async (name: string) => ((await stat(join(dataDir, name))).mode & 0o777).toString(8);

  beforeEach(async () => {
    dataDir = join(await mkdtemp(join(tmpdir(), "fastjoin-test-")), "data");
  });
  afterEach(() => rm(join(dataDir, ".."), { recursive: true, force: true }));

  describe("readOrCreateSecretFile", () => {
    it("gives all who start at once the same text, and leaves no draft behind", async () => {
      const path = join(dataDir, "secret");
      const texts = await Promise.all(
        Array.from({ length: 20 }, (_none, i) => readOrCreateSecretFile(path, () => `made by ${i}`)),
      );
      expect(new Set(texts).size).toBe(1);
      expect(await readdir(dataDir)).toEqual(["secret"]);
      expect(await modeOf("secret")).toBe("600");
    });

    it("makes nothing where there is a file", async () => {
      const path = join(dataDir, "secret");
      await readOrCreateSecretFile(path, () => "first");
      expect(await readOrCreateSecretFile(path, () => expect.unreachable())).toBe("first");
    });
  });

  describe("loadSigningKey", () => {
    it("makes a key at the first start, for its owner only, and keeps it", async () => {
      const [one, two] = await Promise.all([loadSigningKey(dataDir), loadSigningKey(dataDir)]);
      expect(one).toEqual(two);
      expect(one.keyId).toMatch(/^ed25519:a_[0-9a-f]{8}$/);
      expect(await modeOf("signing.key")).toBe("600");
      expect(await loadSigningKey(dataDir)).toEqual(one);
      const signed = signJson({ a: 1 }, "ours.example", one);
      expect(verifyJsonSignature(signed, "ours.example", one.keyId, one.publicKey)).toBe(true);
    });

    it("reads the key of the specification's test vectors", () => {
      const { keyId, publicKey } = parseSigningKey("ed25519 1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1\n");
      expect(keyId).toBe("ed25519:1");
      expect(Buffer.from(publicKey).toString("base64").replace("=", "")).toBe(
        "XGX0JRS2Af3be3knz2fBiRbApjm2Dh61gXDJA8kcJNI",
      );
    });

    it("names the file that is no key, and does not show what is in it", async () => {
      await readOrCreateSecretFile(join(dataDir, "signing.key"), () => "hunter2");
      const failure = loadSigningKey(dataDir);
      await expect(failure).rejects.toThrow(`${join(dataDir, "signing.key")} is not a signing key`);
      await expect(failure).rejects.not.toThrow("hunter2");
    });
  });

  describe("loadOperatorToken", () => {
    it("makes a token for its owner only, where the command line finds it", async () => {
      const config = { dataDir, operatorToken: undefined };
      await expect(findOperatorToken(config)).rejects.toThrow(/no operator token/);
      const token = await loadOperatorToken(config);
      expect(token).toMatch(/^\S{32}$/);
      expect(await modeOf("operator-token")).toBe("600");
      expect(await findOperatorToken(config)).toBe(token);
    });

    it("takes the setting's token and makes no file", async () => {
      const config = { dataDir, operatorToken: "0123456789abcdef" };
      expect(await loadOperatorToken(config)).toBe("0123456789abcdef");
      expect(await findOperatorToken(config)).toBe("0123456789abcdef");
      await expect(readdir(dataDir)).rejects.toThrow("ENOENT");
    });
  });

  describe("loadFederationCertificate", () => {
    it.each([
      ["localhost:8448", "DNS:localhost"],
      ["127.0.0.1:8448", "IP Address:127.0.0.1"],
      ["[::1]:8448", "IP Address:0:0:0:0:0:0:0:1"],
    ])("signs one for %s and keeps it", async (serverName, subject) => {
      const config = { dataDir, serverName, federationTls: { kind: "self-signed" } } as const;
      const certificate = await loadFederationCertificate(config);
      const parsed = new X509Certificate(certificate?.cert ?? "");
      expect(parsed.subjectAltName).toBe(subject);
      expect(parsed.checkPrivateKey(createPrivateKey(certificate?.key ?? ""))).toBe(true);
      expect(Date.parse(parsed.validTo)).toBeGreaterThan(Date.now() + 365 * 24 * 3600 * 1000);
      expect(await loadFederationCertificate(config)).toEqual(certificate);
    });

    it("has none behind a proxy", async () => {
      const config = { dataDir, serverName: "example.org", federationTls: { kind: "off" } } as const;
      expect(await loadFederationCertificate(config)).toBeUndefined();
    });
  });

  describe("lockDataDir", () => {
    it("keeps a second one out until it is released", async () => {
      const unlock = await lockDataDir(dataDir);
      await expect(lockDataDir(dataDir)).rejects.toThrow(`in use by the sidecar with process id ${process.pid}`);
      await unlock();
      await (
        await lockDataDir(dataDir)
      )();
    });

    it.each(["999999999@1\n", `${process.pid}@1\n`, "", "nonsense"])(
      "does not heed a lock whose holder is gone (%j)",
      async (left) => {
        await (
          await lockDataDir(dataDir)
        )();
        await writeFile(join(dataDir, "supervisor.lock"), left);
        await (
          await lockDataDir(dataDir)
        )();
      },
    );
  });

  describe("readRunning", () => {
    it("tells what runs while its supervisor lives", async () => {
      await (
        await lockDataDir(dataDir)
      )();
      expect(await readRunning(dataDir)).toBeUndefined();
      const running = { processes: { supervisor: process.pid, serve: 1 }, clientUrl: "http://127.0.0.1:8008" };
      await writeRunning(dataDir, running);
      expect(await readRunning(dataDir)).toEqual(running);
      expect(await modeOf("running.json")).toBe("600");
      await writeRunning(dataDir, { processes: { supervisor: 999_999_999 } });
      expect(await readRunning(dataDir)).toBeUndefined();
      await removeRunning(dataDir);
      expect(await readRunning(dataDir)).toBeUndefined();
    });
  });

  describe("processIdentity", () => {
    it("knows this process and none that is not there", () => {
      expect(processIdentity(process.pid)).toMatch(new RegExp(`^${process.pid}`));
      expect(processIdentity(999_999_999)).toBeUndefined();
    });
  });
});
