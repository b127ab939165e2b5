// An OPC-UA client of another code base (node-opcua-client), for the tests to look at the simulator with.
//
// The last argument is a JSON array of visits, which are made one after the other. Each is
//   endpoint      opc.tcp://…
//   policy, mode  "None" | "Basic256Sha256" | …, "None" | "Sign" | "SignAndEncrypt"
//   user, password, or userCertificate and userKey (files), or nothing: anonymous
//   certificate, key  of the application (files), with uri; where the policy is not None
//   pki           a folder that the client keeps its trust in
//   nodes         { name: [namespace URI, "s=Pump.Power"] }
//   told          { name: how many notifications to wait for }
//   history       the name of a node whose past is read
//
// It prints a JSON line for each: { endpoints, read, told, history }, as far as they were asked for, or
// { error }, what went wrong.
"use strict";

const fs = require("node:fs");
const opcua = require("node-opcua-client");
const { OPCUACertificateManager } = require("node-opcua-certificate-manager");
const { readCertificate } = require("node-opcua-crypto");

const PATIENCE_MS = 10_000;

function policyOf(name) {
  return Object.values(opcua.SecurityPolicy).find((uri) => uri.split("#")[1]?.replaceAll("_", "") === name);
}

function shown(data) {
  const type = opcua.DataType[data.value.dataType];
  let value = data.value.value;
  if (ArrayBuffer.isView(value)) value = Array.from(value);
  if (type === "Int64" || type === "UInt64") value = value[0] * 2 ** 32 + value[1]; // high and low word
  return {
    value: value === undefined ? null : value,
    type,
    status: data.statusCode.name,
    time: data.sourceTimestamp ? data.sourceTimestamp.getTime() / 1000 : null,
  };
}

function identityOf(visit) {
  if (visit.user) return { type: opcua.UserTokenType.UserName, userName: visit.user, password: visit.password };
  if (visit.userCertificate)
    return {
      type: opcua.UserTokenType.Certificate,
      certificateData: readCertificate(visit.userCertificate),
      privateKey: fs.readFileSync(visit.userKey, "utf8"),
    };
  return { type: opcua.UserTokenType.Anonymous };
}

async function make(visit) {
  const client = opcua.OPCUAClient.create({
    applicationName: "visitor",
    applicationUri: visit.uri || "urn:hw-sim:client",
    securityPolicy: policyOf(visit.policy || "None"),
    securityMode: opcua.MessageSecurityMode[visit.mode || "None"],
    certificateFile: visit.certificate,
    privateKeyFile: visit.key,
    endpointMustExist: false,
    connectionStrategy: { maxRetry: 0, initialDelay: 100 },
    clientCertificateManager: new OPCUACertificateManager({
      rootFolder: visit.pki,
      automaticallyAcceptUnknownCertificate: true,
    }),
  });
  const found = {};
  try {
    await client.connect(visit.endpoint);
    found.endpoints = (await client.getEndpoints()).map((each) => [
      each.securityPolicyUri.split("#")[1].replaceAll("_", ""),
      opcua.MessageSecurityMode[each.securityMode],
      each.userIdentityTokens.map((token) => opcua.UserTokenType[token.tokenType]),
    ]);
    const session = await client.createSession(identityOf(visit));
    const namespaces = await session.readNamespaceArray();
    const ids = Object.fromEntries(
      Object.entries(visit.nodes).map(([name, [uri, id]]) => [name, `ns=${namespaces.indexOf(uri)};${id}`]),
    );
    const names = Object.keys(ids);
    const read = await session.read(
      names.map((name) => ({ nodeId: ids[name], attributeId: opcua.AttributeIds.Value })),
    );
    found.read = Object.fromEntries(names.map((name, at) => [name, shown(read[at])]));
    if (visit.told) found.told = await listen(session, ids, visit.told);
    if (visit.history) {
      const past = await session.readHistoryValue(ids[visit.history], new Date(0), new Date("2100-01-01"));
      found.history = past.historyData.dataValues.map(shown);
    }
    await session.close();
  } finally {
    await client.disconnect();
  }
  return found;
}

async function listen(session, ids, counts) {
  const subscription = await session.createSubscription2({
    requestedPublishingInterval: 50,
    requestedLifetimeCount: 1000,
    requestedMaxKeepAliveCount: 10,
    maxNotificationsPerPublish: 0,
    publishingEnabled: true,
    priority: 1,
  });
  const told = Object.fromEntries(Object.keys(counts).map((name) => [name, []]));
  await new Promise((resolve, reject) => {
    const patience = setTimeout(() => reject(new Error(`told only ${JSON.stringify(told)}`)), PATIENCE_MS);
    const noted = () => {
      if (Object.entries(counts).every(([name, count]) => told[name].length >= count)) {
        clearTimeout(patience);
        resolve();
      }
    };
    for (const name of Object.keys(counts))
      subscription
        .monitor(
          { nodeId: ids[name], attributeId: opcua.AttributeIds.Value },
          { samplingInterval: 10, queueSize: 100, discardOldest: true },
          opcua.TimestampsToReturn.Both,
        )
        .then((item) => item.on("changed", (data) => told[name].push(shown(data)) && noted()))
        .catch(reject);
  });
  await subscription.terminate();
  return told;
}

async function main() {
  for (const visit of JSON.parse(process.argv[process.argv.length - 1])) {
    const found = await make(visit).catch((error) => ({ error: error.message }));
    process.stdout.write(JSON.stringify(found) + "\n");
  }
}

main();
