// The OPC UA server of the interoperability tests: node-opcua, an implementation that shares no code
// with the gateway's. Usage: node server.js PORT FIRST DIRECTORY [secured]. It listens on 127.0.0.1 only, prints
// "READY PORT" when it serves, and keeps its certificates in DIRECTORY. Secured, it also offers every policy, signed and encrypted,
// and knows the user "operator" with the password "päss", "slow", whose login takes 10 s, and the one whose certificate is DIRECTORY/user.der when it starts. A last argument
// adds what costs: "alarms" events all the time, "many COUNT [MILLISECONDS]" variables that count, once a second by default, "growing" a variable more each second, which the server tells.
// "conformance" node-opcua's own nodes for conformance tests. "wary" takes no client whose certificate is not in DIRECTORY/pki/trusted/certs. "certificate NAME"
// makes it the server of NAME.pem and NAME.key, which pki.js has made, with no nodes of its own.
"use strict";
const fs = require("fs");
const path = require("path");
const opcua = require("node-opcua");
const { ServerSecureChannelLayer } = require("node-opcua-secure-channel");
const { DataType, Variant, VariantArrayType, StatusCodes, DataValue } = opcua;

const port = Number(process.argv[2]);
let scan = Number(process.argv[3]); // the number before the first scan
const directory = process.argv[4];
const secured = process.argv[5] === "secured";

// One row a node: name, type, value. The Go side (interop_opcua_test.go) holds the same table.
const fixed = [
  ["Bool", DataType.Boolean, true],
  ["SByte", DataType.SByte, -7],
  ["Byte", DataType.Byte, 200],
  ["Int16", DataType.Int16, -12345],
  ["UInt16", DataType.UInt16, 54321],
  ["Int32", DataType.Int32, -123456789],
  ["UInt32", DataType.UInt32, 4000000000],
  ["Int64", DataType.Int64, [0xfffffffe, 0x00000001]], // high, low: -8589934591
  ["UInt64", DataType.UInt64, [0x00000001, 0x00000002]], // 4294967298
  ["Float", DataType.Float, 3.14159274],
  ["Double", DataType.Double, 2.718281828459045],
  ["String", DataType.String, "Größe 5 µm"],
  ["DateTime", DataType.DateTime, new Date("2026-01-02T03:04:05.678Z")],
];

ServerSecureChannelLayer.g_MinimumSecureTokenLifetime = 1000; // 2500 by itself: tests ask for shorter ones

async function main() {
  const certificates = new opcua.OPCUACertificateManager({
    automaticallyAcceptUnknownCertificate: process.argv[6] !== "wary",
    rootFolder: path.join(directory, "pki"),
  });
  await certificates.initialize();
  const users = secured ? { userCertificateManager: await knownUsers() } : {};
  const name = process.argv[6] === "certificate" && process.argv[7];
  const server = new opcua.OPCUAServer({
    host: "127.0.0.1",
    hostname: "127.0.0.1",
    port,
    resourcePath: "",
    allowAnonymous: true,
    ...security(),
    serverCertificateManager: certificates,
    ...users,
    registerServerMethod: opcua.RegisterServerMethod.HIDDEN,
    buildInfo: { productName: "millrace interop" },
    serverCapabilities: { maxSessions: 100 }, // a test that runs its connections into the wall leaves some; the default is 10
    disableDiscovery: true,
    nodeset_filename: [opcua.nodesets.standard, path.join(__dirname, "types.xml")],
    ...(name && {
      certificateFile: name + ".pem", privateKeyFile: name + ".key", serverInfo: { applicationUri: "urn:millrace:interop" },
      nodeset_filename: [opcua.nodesets.standard],
    }),
    // REVERSE is where it calls, such as opc.tcp://127.0.0.1:4841.
    ...(process.env.REVERSE && { reverseConnect: { connections: [{ endpointUrl: process.env.REVERSE }], reconnectDelay: 500 } }),
  });
  await server.initialize();
  if (!name) {
    addNodes(server);
    addWritable(server);
  }
  if (process.argv[6] === "conformance") {
    const { build_address_space_for_conformance_testing: build } = require("node-opcua-address-space-for-conformance-testing");
    await build(server.engine.addressSpace, { mass_variables: false });
  }
  if (process.argv[6] === "fleeting") addFleeting(server);
  if (process.argv[6] === "growing") addGrowing(server);
  if (process.argv[6] === "many") addMany(server, Number(process.argv[7]), Number(process.argv[8] || 1000));
  await server.start();
  process.removeAllListeners("SIGTERM");
  process.on("SIGTERM", () => server.shutdown(200, () => process.exit(0))); // in peace: it tells its clients
  console.log("READY " + port);
}

// count counts a node up, at least ms milliseconds apart. node-opcua samples each 50 ms, by a timer that puts the reading off by setImmediate: after a process that stood
// still, an interval of our own wrote twice before that, and no client could see the number between. So each number is written behind what was due before it.
function count(node, ms, n = 1) {
  setTimeout(() => setImmediate(() => {
    node.setValueFromSource({ dataType: DataType.UInt32, value: n });
    count(node, ms, n + 1);
  }), ms);
}

async function knownUsers() {
  const users = new opcua.OPCUACertificateManager({
    automaticallyAcceptUnknownCertificate: false,
    rootFolder: path.join(directory, "userpki"),
  });
  await users.initialize();
  const user = path.join(directory, "user.der");
  if (fs.existsSync(user)) await users.trustCertificate(fs.readFileSync(user));
  return users;
}

function security() {
  const { SecurityPolicy: p, MessageSecurityMode: m } = opcua;
  if (!secured) return { securityPolicies: [p.None], securityModes: [m.None] };
  return {
    securityPolicies: [p.None, p.Basic128Rsa15, p.Basic256, p.Basic256Sha256, p.Aes128_Sha256_RsaOaep, p.Aes256_Sha256_RsaPss],
    securityModes: [m.None, m.Sign, m.SignAndEncrypt],
    userManager: {
      isValidUserAsync: (name, password, told) =>
        setTimeout(() => told(null, (name === "operator" || name === "slow") && password === "päss"), name === "slow" ? 10000 : 0),
    },
  };
}

function addNodes(server) {
  const ns = server.engine.addressSpace.getOwnNamespace();
  const folder = ns.addFolder("ObjectsFolder", { browseName: "Interop", nodeId: "s=Interop" });
  const add = (name, dataType, more) =>
    ns.addVariable({ componentOf: folder, browseName: name, nodeId: "s=Interop." + name, dataType, ...more });

  for (const [name, dataType, value] of fixed) {
    add(name, dataType, { value: { dataType, arrayType: VariantArrayType.Scalar, value } });
  }
  add("FloatArray", DataType.Float, {
    valueRank: 1,
    value: { dataType: DataType.Float, arrayType: VariantArrayType.Array, value: new Float32Array([1.5, -2.25, 3]) },
  });
  add("Int32Array", DataType.Int32, {
    valueRank: 1,
    value: { dataType: DataType.Int32, arrayType: VariantArrayType.Array, value: new Int32Array([1, -2, 3, -4]) },
  });

  addStructures(server.engine.addressSpace, add);

  // Scan counts the Read requests for its value: each poll gets the next number, so that a lost poll is
  // a missing number. Each is told on stdout: "SCAN NUMBER MILLISECONDS-SINCE-1970". (Counting in the
  // getter would not do: node-opcua calls it twice a request.)
  const counter = add("Scan", DataType.UInt32, {
    minimumSamplingInterval: 50,
    value: { get: () => new Variant({ dataType: DataType.UInt32, value: scan }) },
  });
  server.on("request", (request) => {
    const nodes = request.nodesToRead || [];
    if (nodes.some((n) => n.attributeId === opcua.AttributeIds.Value && n.nodeId.toString() === counter.nodeId.toString())) {
      scan++;
      console.log("SCAN " + scan + " " + Date.now());
    }
  });
  // Beat counts by itself, for those who subscribe: a change that is lost is a missing number.
  const beat = add("Beat", DataType.UInt32, { value: { dataType: DataType.UInt32, value: 0 } });
  server.engine.addressSpace.installHistoricalDataNode(beat, { maxOnlineValues: 10000 });
  count(beat, 100);
  // Tick counts so slowly that no two of its changes are in one sample, even if the machine stands still.
  const tick = add("Tick", DataType.UInt32, { value: { dataType: DataType.UInt32, value: 0 } });
  count(tick, 400);
  server.engine.addressSpace.installAlarmsAndConditionsService();
  // Alarms: an object that tells events. Level is limited, and rises above and falls below by what is written to it; each turn is an
  // event by itself, too.
  const machine = ns.addObject({ organizedBy: folder, browseName: "Tank", nodeId: "s=Interop.Tank", eventSourceOf: "Server", eventNotifier: 1 });
  const pressure = ns.addVariable({ componentOf: machine, browseName: "Pressure", nodeId: "s=Interop.Tank.Pressure", dataType: DataType.Double,
    eventSourceOf: machine, value: { dataType: DataType.Double, value: 50 } });
  const alarm = ns.instantiateExclusiveLimitAlarm("ExclusiveLimitAlarmType", {
    browseName: "PressureAlarm", conditionSource: pressure, inputNode: pressure, componentOf: machine, conditionName: "Pressure",
    highHighLimit: 100, highLimit: 80, lowLimit: 20, lowLowLimit: 10, optionals: ["ConfirmedState"],
  });
  let turn = 0;
  if (process.argv[6] === "alarms") {
    setInterval(() => {
      turn++;
      machine.raiseEvent("BaseEventType", { severity: { dataType: DataType.UInt16, value: 100 + turn % 5 * 100 },
        message: { dataType: DataType.LocalizedText, value: { text: "turn " + turn } } });
      pressure.setValueFromSource({ dataType: DataType.Double, value: turn % 2 ? 90 : 50 });
    }, 300);
  } else pressure.setValueFromSource({ dataType: DataType.Double, value: 90 }); // one alarm stays
  void alarm;
  // Broken is a node whose device behind the server does not answer.
  add("Broken", DataType.Double, {
    minimumSamplingInterval: 50,
    value: { timestamped_get: () => new DataValue({ statusCode: StatusCodes.BadCommunicationError }) },
  });
  // Still and Epoch never change: their source timestamp is that of a change long ago, or of a clock that was never set.
  for (const [name, time] of [["Still", new Date(Date.now() - 60 * 86400e3)], ["Epoch", new Date(0)]]) {
    add(name, DataType.Double, {
      minimumSamplingInterval: 50,
      value: {
        timestamped_get: () =>
          new DataValue({ sourceTimestamp: time, value: new Variant({ dataType: DataType.Double, value: 7.5 }) }),
      },
    });
  }
  // Unsure has a value that the server itself does not trust.
  add("Unsure", DataType.Double, {
    minimumSamplingInterval: 50,
    value: {
      timestamped_get: () =>
        new DataValue({
          statusCode: StatusCodes.UncertainSensorNotAccurate,
          sourceTimestamp: new Date(),
          value: new Variant({ dataType: DataType.Double, value: 42.5 }),
        }),
    },
  });
}

// addStructures has the data types of types.xml, whose values name their type only.
function addStructures(addressSpace, add) {
  const types = addressSpace.getNamespaceIndex("urn:millrace:types");
  const type = (name) => addressSpace.findDataType(name, types);
  const make = (name, fields) => addressSpace.constructExtensionObject(type(name), fields);
  const steps = [
    make("Step", { name: "heat", time: 1500 }),
    make("Step", { name: "hold", time: 2.5, note: "slow \"ramp\"" }),
    make("Step", { name: "cool", time: 0, tries: 3, note: "" }),
  ];
  const recipe = {
    name: "A 7", mode: 2, set: { temperature: 180.5, pressure: 1.25 }, steps, amount: { weight: 2.75 }, codes: [7, -8],
    made: new Date("2026-01-02T03:04:05.678Z"), raw: Buffer.from([0, 255]), title: { locale: "de", text: "Größe" }, large: [1, 2],
  };
  const variable = (name, dataType, value, more) => add(name, dataType, { value, ...more });
  const structure = { dataType: DataType.ExtensionObject };
  variable("Recipe", type("Recipe"), { ...structure, value: make("Recipe", recipe) });
  variable("Versioned", type("Versioned"), { ...structure, value: make("Versioned", { ...recipe, steps: [], amount: { label: "x" }, version: 9 }) });
  variable("Steps", type("Step"), { ...structure, arrayType: VariantArrayType.Array, value: steps }, { valueRank: 1 });
  variable("Amount", type("Amount"), { ...structure, value: make("Amount", { count: 12 }) });
  variable("Mode", type("Mode"), { dataType: DataType.Int32, value: 1 });
  variable("Matrix", DataType.Double, { dataType: DataType.Double, arrayType: VariantArrayType.Matrix, dimensions: [2, 3], value: new Float64Array([1, 2, 3, 4, 5, 6]) },
    { valueRank: 2, arrayDimensions: [2, 3] });
  variable("Text", DataType.LocalizedText, { dataType: DataType.LocalizedText, value: { locale: "de", text: "Spindel" } });
  addressSpace.getOwnNamespace().addAnalogDataItem({ componentOf: "ns=1;s=Interop", browseName: "Level", nodeId: "s=Interop.Level", dataType: "Double", description: "of the tank",
    engineeringUnits: opcua.standardUnits.millimetre, engineeringUnitsRange: { low: 0, high: 2000 }, value: { dataType: DataType.Double, value: 12.5 } });
  addressSpace.getOwnNamespace().addMultiStateDiscrete({ componentOf: "ns=1;s=Interop", browseName: "Gear", nodeId: "s=Interop.Gear", enumStrings: ["N", "1st", "2nd"], value: 2 });
}

// addMany has variables Many.0 … that all change once in so many milliseconds: each to the next number, so that a change that is lost is a missing number.
function addMany(server, count, every) {
  const ns = server.engine.addressSpace.getOwnNamespace();
  const folder = ns.addFolder("ObjectsFolder", { browseName: "Many", nodeId: "s=Many" });
  const all = [];
  for (let i = 0; i < count; i++) {
    all.push(ns.addVariable({ componentOf: folder, browseName: "Many" + i, nodeId: "s=Many." + i, dataType: DataType.UInt32,
      value: { dataType: DataType.UInt32, value: 0 } }));
  }
  let turn = 0;
  setInterval(() => {
    turn++;
    for (const v of all) v.setValueFromSource({ dataType: DataType.UInt32, value: turn });
  }, every);
}

// addFleeting has a variable that is gone for a second out of every 20, and comes back. Then clients are told to refresh their conditions. An object
// that tells events comes some seconds after the first session.
function addFleeting(server) {
  const ns = server.engine.addressSpace.getOwnNamespace();
  const add = () => ns.addVariable({ organizedBy: "ObjectsFolder", browseName: "Fleeting", nodeId: "s=Fleeting", dataType: DataType.Double,
    value: { dataType: DataType.Double, value: 1.5 } });
  let now = add();
  setInterval(() => {
    ns.deleteNode(now);
    server.engine.addressSpace.rootFolder.objects.server.raiseEvent("RefreshRequiredEventType", {});
    setTimeout(() => (now = add()), 1000);
  }, 20000);
  const late = () => ns.addObject({ organizedBy: "ObjectsFolder", browseName: "Late", nodeId: "s=Late", eventNotifier: 1, eventSourceOf: ns.addressSpace.rootFolder.objects.server });
  server.once("create_session", () => setTimeout(late, 10000)); // not by our own start, which a slow machine sees late
}

// addGrowing adds a variable each second below Interop, whose NodeVersion makes node-opcua tell that by a GeneralModelChangeEvent.
function addGrowing(server) {
  const addressSpace = server.engine.addressSpace;
  const ns = addressSpace.getOwnNamespace();
  const folder = addressSpace.findNode("ns=1;s=Interop");
  ns.addVariable({ propertyOf: folder, browseName: { name: "NodeVersion", namespaceIndex: 0 }, dataType: DataType.String, value: { dataType: DataType.String, value: "1" } });
  let n = 0;
  setInterval(() => {
    addressSpace.modelChangeTransaction(() =>
      ns.addVariable({ componentOf: folder, browseName: "Grown" + ++n, nodeId: "s=Interop.Grown" + n, dataType: DataType.UInt32, value: { dataType: DataType.UInt32, value: n } }));
  }, 1000);
}

// What clients may write. Each change is told on stdout: "HOLDS NAME TYPE JSON".
function addWritable(server) {
  const ns = server.engine.addressSpace.getOwnNamespace();
  const folder = ns.addObject({ organizedBy: "ObjectsFolder", browseName: "Writable", nodeId: "s=Writable" });
  const add = (name, dataType, value, more) => {
    const variable = ns.addVariable({ componentOf: folder, browseName: name, nodeId: "s=Writable." + name, dataType, value, ...more });
    variable.on("value_changed", (now) => {
      const v = now.value.value;
      const plain = ArrayBuffer.isView(v) && !Buffer.isBuffer(v) ? Array.from(v) : v;
      console.log("HOLDS " + name + " " + DataType[now.value.dataType] + (now.value.arrayType === VariantArrayType.Array ? "[]" : "") + " " +
        JSON.stringify(plain, (key, x) => (x && x.type === "Buffer" ? Buffer.from(x.data).toString("hex") : x)));
    });
    return variable;
  };
  const empty = { String: "", DateTime: new Date(), Guid: "00000000-0000-0000-0000-000000000000", ByteString: Buffer.from([1]),
    LocalizedText: new opcua.LocalizedText({ text: "x" }), Boolean: false, Int64: [0, 0], UInt64: [0, 0] };
  const types = ["Boolean", "SByte", "Byte", "Int16", "UInt16", "Int32", "UInt32", "Int64", "UInt64", "Float", "Double", "String", "DateTime",
    "Guid", "ByteString", "LocalizedText"];
  for (const name of types) {
    const dataType = DataType[name];
    add(name, dataType, { dataType, arrayType: VariantArrayType.Scalar, value: name in empty ? empty[name] : 0 });
    if (name === "LocalizedText" || name === "Guid") continue;
    const value = name in empty ? [empty[name]] : [0];
    add(name + "Array", dataType, { dataType, arrayType: VariantArrayType.Array, value }, { valueRank: 1 });
  }
  const mode = ns.addEnumerationType({ browseName: "Mode", enumeration: ["Off", "Slow", "Fast"] });
  add("Mode", mode.nodeId, { dataType: DataType.Int32, value: 0 });
  add("Any", DataType.Variant, { dataType: DataType.UInt16, value: 0 });
  add("ReadOnly", DataType.Double, { dataType: DataType.Double, value: 1 }, { accessLevel: "CurrentRead", userAccessLevel: "CurrentRead" });
  add("Denied", DataType.Double, { dataType: DataType.Double, value: 1 }, { accessLevel: "CurrentRead | CurrentWrite", userAccessLevel: "CurrentRead" });

  const method = ns.addMethod(folder, {
    browseName: "Sum",
    nodeId: "s=Writable.Sum",
    inputArguments: [
      { name: "scale", dataType: DataType.Double, valueRank: -1, description: { text: "of the sum" } },
      { name: "list", dataType: DataType.UInt16, valueRank: 1 },
      { name: "mode", dataType: mode.nodeId, valueRank: -1 },
    ],
    outputArguments: [
      { name: "sum", dataType: DataType.Double, valueRank: -1 },
      { name: "label", dataType: DataType.String, valueRank: -1 },
    ],
  });
  method.bindMethod((args, context, callback) => {
    const [scale, list, speed] = args.map((a) => a.value);
    if (scale < 0) return callback(null, { statusCode: StatusCodes.BadOutOfRange });
    const sum = scale * Array.from(list).reduce((a, b) => a + b, 0);
    callback(null, {
      statusCode: StatusCodes.Good,
      outputArguments: [{ dataType: DataType.Double, value: sum }, { dataType: DataType.String, value: "mode " + speed }],
    });
  });
}

process.on("SIGTERM", () => process.exit(0));
main().catch((err) => {
  console.error(err);
  process.exit(1);
});
