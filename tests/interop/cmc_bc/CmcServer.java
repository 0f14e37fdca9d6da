import com.sun.net.httpserver.*;
import java.io.*;
import java.math.BigInteger;
import java.net.*;
import java.nio.charset.StandardCharsets;
import java.nio.file.*;
import java.security.*;
import java.security.cert.X509Certificate;
import java.util.*;
import java.util.concurrent.ConcurrentHashMap;
import javax.net.ssl.*;
import org.bouncycastle.asn1.*;
import org.bouncycastle.asn1.cmc.*;
import org.bouncycastle.asn1.cms.IssuerAndSerialNumber;
import org.bouncycastle.asn1.crmf.*;
import org.bouncycastle.asn1.pkcs.*;
import org.bouncycastle.asn1.x500.X500Name;
import org.bouncycastle.asn1.x509.*;
import org.bouncycastle.asn1.x509.Extension;
import org.bouncycastle.cert.*;
import org.bouncycastle.cert.crmf.*;
import org.bouncycastle.cms.*;
import org.bouncycastle.cms.jcajce.*;
import org.bouncycastle.operator.jcajce.*;
import org.bouncycastle.pkcs.PKCS10CertificationRequest;

/**
 * A CMC server made of BouncyCastle's classes. It believes nothing that it has not checked.
 * Arguments: a directory, a port of 127.0.0.1, and "tls" for HTTPS.
 * The directory holds ca, ra (.pem, .key), device-anchors.pem, secrets (lines "name secret"), and tls.p12 (password "tls").
 * Paths: /cmc in binary and /.well-known/est/fullcmc in base64; with /pending or /confirm before them, the
 * certificate has to be waited for, or its acceptance confirmed. /log tells what was done, a line each.
 */
public final class CmcServer {
    private static final ASN1ObjectIdentifier POP_LINK_WITNESS_V2 = CMCObjectIdentifiers.id_cmc_popLinkWitnessV2;
    private static final Set<ASN1ObjectIdentifier> KNOWN = Set.of(
        CMCObjectIdentifiers.id_cmc_transactionId, CMCObjectIdentifiers.id_cmc_senderNonce,
        CMCObjectIdentifiers.id_cmc_recipientNonce, CMCObjectIdentifiers.id_cmc_identification,
        CMCObjectIdentifiers.id_cmc_identityProofV2, CMCObjectIdentifiers.id_cmc_popLinkRandom,
        CMCObjectIdentifiers.id_cmc_dataReturn, CMCObjectIdentifiers.id_cmc_queryPending,
        CMCObjectIdentifiers.id_cmc_confirmCertAcceptance, CMCObjectIdentifiers.id_cmc_revokeRequest,
        CMCObjectIdentifiers.id_cmc_getCert, CMCObjectIdentifiers.id_cmc_getCRL,
        CMCObjectIdentifiers.id_cmc_statusInfoV2, CMCObjectIdentifiers.id_cmc_decryptedPOP,
        CMCObjectIdentifiers.id_cmc_regInfo);

    private final Path home;
    private final Cmc.Identity ca;
    private final Cmc.Identity ra;
    private final List<X509Certificate> anchors;
    private final Map<String, byte[]> secrets = new HashMap<>();
    private final Map<BigInteger, X509CertificateHolder> issued = new ConcurrentHashMap<>();
    private final Set<BigInteger> revoked = ConcurrentHashMap.newKeySet();
    private final Map<String, List<Asked>> waiting = new ConcurrentHashMap<>();
    private final Map<String, byte[]> challenged = new ConcurrentHashMap<>();
    private final List<String> log = Collections.synchronizedList(new ArrayList<>());

    /** A certificate that was asked for, its request judged. *proved* is false for a key that only decrypts. */
    private record Asked(BodyPartID part, X500Name subject, SubjectPublicKeyInfo key, Extensions extensions, boolean proved, TaggedRequest whole) { }

    /** Who sent a request: a certificate under the anchors, the requested key, or nobody. */
    private record Sender(X509Certificate certificate, boolean byRequestedKey) { }

    private CmcServer(Path home) throws Exception {
        this.home = home;
        ca = Cmc.identity(home, "ca");
        ra = Cmc.identity(home, "ra");
        anchors = new ArrayList<>(Cmc.certificates(home.resolve("device-anchors.pem")));
        anchors.add(ca.certificate());
        for (String line : Files.readAllLines(home.resolve("secrets"))) {
            String[] parts = line.split(" ", 2);
            secrets.put(parts[0], parts[1].getBytes(StandardCharsets.UTF_8));
        }
    }

    /** What one request is answered with. */
    private final class Answer {
        final List<TaggedAttribute> controls = new ArrayList<>();
        final List<X509CertificateHolder> certificates = new ArrayList<>();
        final List<X509CRLHolder> crls = new ArrayList<>();

        void add(ASN1ObjectIdentifier type, ASN1Encodable value) {
            controls.add(Cmc.control(controls.size() + 1, type, value));
        }

        void status(CMCStatusInfoV2Builder status) { add(CMCObjectIdentifiers.id_cmc_statusInfoV2, status.build()); }

        void succeeded(BodyPartID... parts) { status(new CMCStatusInfoV2Builder(CMCStatus.success, parts)); }

        byte[] encode() throws Exception {
            PKIResponse response = new PKIResponse(
                controls.toArray(new TaggedAttribute[0]), PKIResponse.EMPTY_CMS_SEQUENCE, PKIResponse.EMPTY_OTHER_MSG);
            List<Object> all = new ArrayList<>(certificates);
            all.addAll(ra.chain());
            all.add(ca.certificate());
            return Cmc.sign(CMCObjectIdentifiers.id_cct_PKIResponse, response.getEncoded("DER"), ra, null, all, crls);
        }
    }

    private byte[] answer(byte[] message, String mode) throws Exception {
        Answer answer = new Answer();
        try {
            CMSSignedData signed = Cmc.open(message, CMCObjectIdentifiers.id_cct_PKIData);
            byte[] content = Cmc.content(signed);
            PKIData data = PKIData.getInstance(content);
            if (!Arrays.equals(data.getEncoded("DER"), content)) {
                throw new Cmc.Refused(CMCFailInfo.badRequest, "the PKIData is not in DER, or BouncyCastle writes it otherwise");
            }
            TaggedAttribute[] controls = data.getControlSequence();
            echo(controls, answer);
            parts(data);
            for (TaggedAttribute each : controls) {
                if (!KNOWN.contains(each.getAttrType())) {
                    throw new Cmc.Refused(CMCFailInfo.badRequest, "unknown control " + each.getAttrType());
                }
            }
            List<Asked> asked = new ArrayList<>();
            for (TaggedRequest each : data.getReqSequence()) { asked.add(asked(each)); }
            Sender sender = sender(signed, asked);
            log.add("signed by " + (sender.certificate() != null ? "certificate" : sender.byRequestedKey() ? "key" : "nobody"));
            perform(content, data, asked, sender, mode, answer);
        } catch (Cmc.Refused refused) {
            log.add("refused: " + refused.getMessage());
            answer.status(new CMCStatusInfoV2Builder(CMCStatus.failed, new BodyPartID(0))
                .setStatusString(refused.getMessage()).setOtherInfo(refused.info));
        } catch (IllegalArgumentException | IOException | ClassCastException | CMSException error) {
            log.add("unreadable: " + error);
            answer.status(new CMCStatusInfoV2Builder(CMCStatus.failed, new BodyPartID(0))
                .setStatusString(String.valueOf(error.getMessage())).setOtherInfo(CMCFailInfo.badRequest));
        }
        return answer.encode();
    }

    private void echo(TaggedAttribute[] controls, Answer answer) throws Cmc.Refused {
        ASN1Encodable transaction = Cmc.value(controls, CMCObjectIdentifiers.id_cmc_transactionId);
        if (transaction != null) { answer.add(CMCObjectIdentifiers.id_cmc_transactionId, ASN1Integer.getInstance(transaction)); }
        byte[] nonce = Cmc.octets(controls, CMCObjectIdentifiers.id_cmc_senderNonce);
        if (nonce != null) {
            answer.add(CMCObjectIdentifiers.id_cmc_recipientNonce, new DEROctetString(nonce));
            answer.add(CMCObjectIdentifiers.id_cmc_senderNonce, new DEROctetString(Cmc.random(20)));
        }
        byte[] kept = Cmc.octets(controls, CMCObjectIdentifiers.id_cmc_dataReturn);
        if (kept != null) { answer.add(CMCObjectIdentifiers.id_cmc_dataReturn, new DEROctetString(kept)); }
    }

    /** Body part identifiers are unique, and none is 0 (§3.2.2). */
    private void parts(PKIData data) throws Cmc.Refused {
        Set<Long> seen = new HashSet<>();
        List<BodyPartID> all = new ArrayList<>();
        for (TaggedAttribute each : data.getControlSequence()) { all.add(each.getBodyPartID()); }
        for (TaggedContentInfo each : data.getCmsSequence()) { all.add(each.getBodyPartID()); }
        for (OtherMsg each : data.getOtherMsgSequence()) { all.add(each.getBodyPartID()); }
        for (TaggedRequest each : data.getReqSequence()) { all.add(part(each)); }
        for (BodyPartID each : all) {
            if (each.getID() == 0 || !seen.add(each.getID())) {
                throw new Cmc.Refused(CMCFailInfo.badRequest, "body part " + each.getID() + " twice, or 0");
            }
        }
    }

    private static BodyPartID part(TaggedRequest request) {
        if (request.getTagNo() == TaggedRequest.TCR) {
            return TaggedCertificationRequest.getInstance(request.getValue()).getBodyPartID();
        }
        return new BodyPartID(CertReqMsg.getInstance(request.getValue()).getCertReq().getCertReqId().longValueExact());
    }

    /** A request whose proof of possession holds. */
    private Asked asked(TaggedRequest request) throws Exception {
        BodyPartID part = part(request);
        if (request.getTagNo() == TaggedRequest.TCR) {
            PKCS10CertificationRequest csr = new PKCS10CertificationRequest(
                TaggedCertificationRequest.getInstance(request.getValue()).getCertificationRequest().getEncoded());
            if (!csr.isSignatureValid(new JcaContentVerifierProviderBuilder().build(csr.getSubjectPublicKeyInfo()))) {
                throw new Cmc.Refused(CMCFailInfo.popFailed, "the PKCS #10 request is not signed by its key");
            }
            return new Asked(part, csr.getSubject(), csr.getSubjectPublicKeyInfo(), csr.getRequestedExtensions(), true, request);
        }
        if (request.getTagNo() != TaggedRequest.CRM) { throw new Cmc.Refused(CMCFailInfo.badRequest, "an orm request"); }
        CertificateRequestMessage crm = new CertificateRequestMessage(CertReqMsg.getInstance(request.getValue()));
        CertTemplate wanted = crm.getCertTemplate();
        boolean proved = crm.hasProofOfPossession() && crm.getProofOfPossessionType() == CertificateRequestMessage.popSigningKey;
        if (proved && !crm.isValidSigningKeyPOP(new JcaContentVerifierProviderBuilder().build(wanted.getPublicKey()))) {
            throw new Cmc.Refused(CMCFailInfo.popFailed, "the CRMF request is not signed by its key");
        }
        if (!proved && crm.hasProofOfPossession() && crm.getProofOfPossessionType() == CertificateRequestMessage.popRaVerified) {
            throw new Cmc.Refused(CMCFailInfo.popRequired, "raVerified from someone who is no RA");
        }
        return new Asked(part, wanted.getSubject(), wanted.getPublicKey(), wanted.getExtensions(), proved, request);
    }

    private Sender sender(CMSSignedData signed, List<Asked> asked) throws Exception {
        if (signed.getSignerInfos().size() == 0) { return new Sender(null, false); }
        SignerInformation signer = signed.getSignerInfos().iterator().next();
        byte[] named = signer.getSID().getSubjectKeyIdentifier();
        if (named == null) {
            X509Certificate certificate = Cmc.signerCertificate(signed, anchors);
            if (certificate == null) { throw new Cmc.Refused(CMCFailInfo.badMessageCheck, "the signer's certificate is not there"); }
            if (revoked.contains(certificate.getSerialNumber()) && certificate.getIssuerX500Principal().equals(ca.certificate().getSubjectX500Principal())) {
                throw new Cmc.Refused(CMCFailInfo.badIdentity, "the signer's certificate is revoked");
            }
            return new Sender(certificate, false);
        }
        for (Asked each : asked) {
            Extension asksFor = each.extensions() == null ? null : each.extensions().getExtension(Extension.subjectKeyIdentifier);
            if (asksFor == null || !Arrays.equals(named, SubjectKeyIdentifier.getInstance(asksFor.getParsedValue()).getKeyIdentifier())) { continue; }
            PublicKey key = publicKey(each.key());
            if (!signer.verify(new JcaSimpleSignerInfoVerifierBuilder().setProvider(Cmc.BC).build(key))) {
                throw new Cmc.Refused(CMCFailInfo.badMessageCheck, "the signature is not of the requested key");
            }
            return new Sender(null, true);
        }
        throw new Cmc.Refused(CMCFailInfo.badMessageCheck, "no request asks for the key identifier that the signature names");
    }

    private static PublicKey publicKey(SubjectPublicKeyInfo info) throws Exception {
        return new org.bouncycastle.openssl.jcajce.JcaPEMKeyConverter().getPublicKey(info);
    }

    private void perform(byte[] content, PKIData data, List<Asked> asked, Sender sender, String mode, Answer answer) throws Exception {
        TaggedAttribute[] controls = data.getControlSequence();
        for (TaggedAttribute each : controls) {
            ASN1ObjectIdentifier type = each.getAttrType();
            if (type.equals(CMCObjectIdentifiers.id_cmc_revokeRequest)) {
                revoke(each.getBodyPartID(), RevokeRequest.getInstance(Cmc.value(controls, type)), sender, controls, answer);
            } else if (type.equals(CMCObjectIdentifiers.id_cmc_queryPending)) {
                List<Asked> due = waiting.remove(Cmc.hex(new BigInteger(1, Cmc.octets(controls, type))));
                if (due == null) { throw new Cmc.Refused(CMCFailInfo.badRequest, "nobody waits with this token"); }
                issue(due, false, answer);
            } else if (type.equals(CMCObjectIdentifiers.id_cmc_confirmCertAcceptance)) {
                IssuerAndSerialNumber accepted = IssuerAndSerialNumber.getInstance(Cmc.value(controls, type));
                X509CertificateHolder which = issued.get(accepted.getSerialNumber().getValue());
                if (which == null || !which.getIssuer().equals(accepted.getName())) { throw new Cmc.Refused(CMCFailInfo.badCertId, "not ours"); }
                log.add("confirmed " + Cmc.hex(which.getSerialNumber()));
                answer.succeeded(each.getBodyPartID());
            } else if (type.equals(CMCObjectIdentifiers.id_cmc_getCert)) {
                X509CertificateHolder which = issued.get(GetCert.getInstance(Cmc.value(controls, type)).getSerialNumber());
                if (which == null) { throw new Cmc.Refused(CMCFailInfo.badCertId, "not ours"); }
                answer.certificates.add(which);
                answer.succeeded(each.getBodyPartID());
            } else if (type.equals(CMCObjectIdentifiers.id_cmc_getCRL)) {
                GetCRL.getInstance(Cmc.value(controls, type));
                answer.crls.add(crl());
                answer.succeeded(each.getBodyPartID());
            } else if (type.equals(CMCObjectIdentifiers.id_cmc_decryptedPOP)) {
                decrypted(DecryptedPOP.getInstance(Cmc.value(controls, type)), asked, answer);
                return;
            }
        }
        if (asked.isEmpty()) { return; }
        identify(content, controls, asked, sender);
        for (Asked each : asked) {
            if (!each.proved()) {
                challenge(each, answer);
                return;
            }
        }
        if (mode.equals("pending")) {
            byte[] token = Cmc.random(16);
            token[0] |= 1;
            waiting.put(Cmc.hex(new BigInteger(1, token)), asked);
            answer.status(new CMCStatusInfoV2Builder(CMCStatus.pending, ids(asked))
                .setOtherInfo(new PendInfo(token, new ASN1GeneralizedTime(new Date()))));
            log.add("pending");
            return;
        }
        issue(asked, mode.equals("confirm"), answer);
    }

    /** Whoever has no certificate proves with a secret who it is, and that it is who holds the key (§6.2.1, §6.3.1.1). */
    private void identify(byte[] content, TaggedAttribute[] controls, List<Asked> asked, Sender sender) throws Exception {
        ASN1Encodable proof = Cmc.value(controls, CMCObjectIdentifiers.id_cmc_identityProofV2);
        if (proof == null) {
            if (sender.certificate() == null) { throw new Cmc.Refused(CMCFailInfo.badIdentity, "no certificate and no identity proof"); }
            X500Name own = X500Name.getInstance(sender.certificate().getSubjectX500Principal().getEncoded());
            boolean renewal = sender.certificate().getIssuerX500Principal().equals(ca.certificate().getSubjectX500Principal());
            for (Asked each : asked) {
                if (renewal && !own.equals(each.subject())) { throw new Cmc.Refused(CMCFailInfo.badIdentity, "a renewal under another name"); }
            }
            log.add(renewal ? "renewal" : "initial");
            return;
        }
        ASN1Encodable named = Cmc.value(controls, CMCObjectIdentifiers.id_cmc_identification);
        byte[] identification = named == null ? new byte[0] : ASN1UTF8String.getInstance(named).getString().getBytes(StandardCharsets.UTF_8);
        byte[] secret = secrets.get(new String(identification, StandardCharsets.UTF_8));
        IdentityProofV2 given = IdentityProofV2.getInstance(proof);
        byte[] requests = ASN1Sequence.getInstance(content).getObjectAt(1).toASN1Primitive().getEncoded("DER");
        byte[] key = secret == null ? new byte[0] : Cmc.digest(given.getProofAlgID(), secret, identification);
        if (secret == null || !MessageDigest.isEqual(Cmc.mac(given.getMacAlgId(), key, requests), given.getWitness())) {
            throw new Cmc.Refused(CMCFailInfo.badIdentity, "the identity proof is wrong");
        }
        byte[] random = Cmc.octets(controls, CMCObjectIdentifiers.id_cmc_popLinkRandom);
        if (random == null || random.length < 64) { throw new Cmc.Refused(CMCFailInfo.badRequest, "no POP link random of 512 bits"); }
        for (Asked each : asked) {
            PopLinkWitnessV2 link = link(each.whole());
            if (link == null || !MessageDigest.isEqual(
                    Cmc.mac(link.getMacAlgorithm(), Cmc.digest(link.getKeyGenAlgorithm(), secret), random), link.getWitness())) {
                throw new Cmc.Refused(CMCFailInfo.popFailed, "the POP link witness is wrong or missing");
            }
        }
        log.add("identified by secret");
    }

    private static PopLinkWitnessV2 link(TaggedRequest request) throws Exception {
        if (request.getTagNo() == TaggedRequest.TCR) {
            PKCS10CertificationRequest csr = new PKCS10CertificationRequest(
                TaggedCertificationRequest.getInstance(request.getValue()).getCertificationRequest().getEncoded());
            org.bouncycastle.asn1.pkcs.Attribute[] found = csr.getAttributes(POP_LINK_WITNESS_V2);
            return found.length == 1 ? PopLinkWitnessV2.getInstance(found[0].getAttrValues().getObjectAt(0)) : null;
        }
        Controls found = CertReqMsg.getInstance(request.getValue()).getCertReq().getControls();
        for (AttributeTypeAndValue each : found == null ? new AttributeTypeAndValue[0] : found.toAttributeTypeAndValueArray()) {
            if (each.getType().equals(POP_LINK_WITNESS_V2)) { return PopLinkWitnessV2.getInstance(each.getValue()); }
        }
        return null;
    }

    private void issue(List<Asked> asked, boolean confirm, Answer answer) throws Exception {
        for (Asked each : asked) {
            BigInteger serial = new BigInteger(64, Cmc.RANDOM).setBit(60);
            Date now = new Date();
            X509v3CertificateBuilder builder = new X509v3CertificateBuilder(
                X500Name.getInstance(ca.certificate().getSubjectX500Principal().getEncoded()), serial,
                now, new Date(now.getTime() + 30L * 86400_000), each.subject(), each.key());
            org.bouncycastle.cert.jcajce.JcaX509ExtensionUtils utils = new org.bouncycastle.cert.jcajce.JcaX509ExtensionUtils();
            builder.addExtension(Extension.basicConstraints, true, new BasicConstraints(false));
            builder.addExtension(Extension.authorityKeyIdentifier, false, utils.createAuthorityKeyIdentifier(ca.certificate()));
            builder.addExtension(Extension.subjectKeyIdentifier, false, utils.createSubjectKeyIdentifier(each.key()));
            Extension san = each.extensions() == null ? null : each.extensions().getExtension(Extension.subjectAlternativeName);
            if (san != null) { builder.addExtension(san); }
            X509CertificateHolder made = builder.build(Cmc.signer(ca.key()));
            issued.put(serial, made);
            answer.certificates.add(made);
            log.add("issued " + Cmc.hex(serial));
        }
        answer.status(new CMCStatusInfoV2Builder(confirm ? CMCStatus.confirmRequired : CMCStatus.success, ids(asked)));
    }

    private static BodyPartID[] ids(List<Asked> asked) { return asked.stream().map(Asked::part).toArray(BodyPartID[]::new); }

    /** The key proves itself by decrypting (§6.7): a POP value, sent encrypted to it. */
    private void challenge(Asked asked, Answer answer) throws Exception {
        byte[] value = Cmc.random(32);
        challenged.put(Base64.getEncoder().encodeToString(asked.whole().getEncoded("DER")), value);
        Extension named = asked.extensions() == null ? null : asked.extensions().getExtension(Extension.subjectKeyIdentifier);
        if (named == null) { throw new Cmc.Refused(CMCFailInfo.popRequired, "a key that only decrypts, without an identifier"); }
        CMSEnvelopedDataGenerator generator = new CMSEnvelopedDataGenerator();
        generator.addRecipientInfoGenerator(new JceKeyTransRecipientInfoGenerator(
            SubjectKeyIdentifier.getInstance(named.getParsedValue()).getKeyIdentifier(),
            publicKey(asked.key())));
        CMSEnvelopedData enveloped = generator.generate(
            new CMSProcessableByteArray(value), new JceCMSContentEncryptorBuilder(CMSAlgorithm.AES128_CBC).build());
        answer.add(CMCObjectIdentifiers.id_cmc_encryptedPOP, new EncryptedPOP(
            asked.whole(), enveloped.toASN1Structure(), Cmc.HMAC256, Cmc.SHA256, Cmc.digest(Cmc.SHA256, value)));
        answer.status(new CMCStatusInfoV2Builder(CMCStatus.failed, asked.part()).setOtherInfo(CMCFailInfo.popRequired));
        log.add("challenged");
    }

    private void decrypted(DecryptedPOP pop, List<Asked> asked, Answer answer) throws Exception {
        for (Asked each : asked) {
            byte[] value = challenged.remove(Base64.getEncoder().encodeToString(each.whole().getEncoded("DER")));
            if (each.part().equals(pop.getBodyPartID()) && value != null && MessageDigest.isEqual(
                    Cmc.mac(pop.getThePOPAlgID(), value, each.whole().getEncoded("DER")), pop.getThePOP())) {
                log.add("decrypted");
                issue(List.of(each), false, answer);
                return;
            }
        }
        throw new Cmc.Refused(CMCFailInfo.popFailed, "the value was not decrypted");
    }

    private void revoke(BodyPartID part, RevokeRequest request, Sender sender, TaggedAttribute[] controls, Answer answer) throws Exception {
        X509CertificateHolder which = issued.get(request.getSerialNumber());
        if (which == null || !which.getIssuer().equals(request.getName())) { throw new Cmc.Refused(CMCFailInfo.badCertId, "not ours"); }
        boolean own = sender.certificate() != null && sender.certificate().getSerialNumber().equals(request.getSerialNumber());
        boolean known = request.getPassPhrase() != null
            && secrets.values().stream().anyMatch(secret -> MessageDigest.isEqual(secret, request.getPassPhrase()));
        if (!own && !known) { throw new Cmc.Refused(CMCFailInfo.badIdentity, "neither the owner's signature nor the secret"); }
        revoked.add(request.getSerialNumber());
        log.add("revoked " + Cmc.hex(request.getSerialNumber()) + " reason " + request.getReason().getValue() + (own ? " by signature" : " by secret"));
        answer.succeeded(part);
    }

    private X509CRLHolder crl() throws Exception {
        Date now = new Date();
        X509v2CRLBuilder builder = new X509v2CRLBuilder(X500Name.getInstance(ca.certificate().getSubjectX500Principal().getEncoded()), now);
        builder.setNextUpdate(new Date(now.getTime() + 86400_000L));
        builder.addExtension(Extension.cRLNumber, false, new CRLNumber(BigInteger.ONE));
        for (BigInteger serial : revoked) { builder.addCRLEntry(serial, now, CRLReason.cessationOfOperation); }
        return builder.build(Cmc.signer(ca.key()));
    }

    private void handle(HttpExchange exchange) throws IOException {
        byte[] body = exchange.getRequestBody().readAllBytes();
        String path = exchange.getRequestURI().getPath();
        int status = 200;
        byte[] reply;
        String type = "application/pkcs7-mime; smime-type=CMC-response; name=answer.crp";
        try {
            if (path.equals("/log")) {
                reply = String.join("\n", log).getBytes(StandardCharsets.UTF_8);
                type = "text/plain";
            } else {
                boolean est = path.endsWith("/.well-known/est/fullcmc");
                String mode = path.startsWith("/pending/") ? "pending" : path.startsWith("/confirm/") ? "confirm" : "";
                String given = String.valueOf(exchange.getRequestHeaders().getFirst("Content-Type"));
                if (!given.startsWith("application/pkcs7-mime") || !given.contains("smime-type=CMC-request")) {
                    throw new IOException("Content-Type is " + given);
                }
                reply = answer(est ? Base64.getMimeDecoder().decode(body) : body, mode);
                if (est) { reply = Base64.getMimeEncoder().encode(reply); }
            }
        } catch (Exception error) {
            StringWriter text = new StringWriter();
            error.printStackTrace(new PrintWriter(text));
            System.err.print(text);
            log.add("error: " + error);
            status = 400;
            type = "text/plain";
            reply = text.toString().getBytes(StandardCharsets.UTF_8);
        }
        exchange.getResponseHeaders().set("Content-Type", type);
        exchange.sendResponseHeaders(status, reply.length);
        try (OutputStream out = exchange.getResponseBody()) { out.write(reply); }
    }

    public static void main(String[] arguments) throws Exception {
        CmcServer server = new CmcServer(Path.of(arguments[0]));
        InetSocketAddress address = new InetSocketAddress(InetAddress.getLoopbackAddress(), Integer.parseInt(arguments[1]));
        HttpServer http;
        if (arguments.length > 2 && arguments[2].equals("tls")) {
            KeyStore store = KeyStore.getInstance("PKCS12");
            try (InputStream in = Files.newInputStream(server.home.resolve("tls.p12"))) { store.load(in, "tls".toCharArray()); }
            KeyManagerFactory keys = KeyManagerFactory.getInstance("PKIX");
            keys.init(store, "tls".toCharArray());
            SSLContext context = SSLContext.getInstance("TLS");
            context.init(keys.getKeyManagers(), null, null);
            HttpsServer https = HttpsServer.create(address, 0);
            https.setHttpsConfigurator(new HttpsConfigurator(context));
            http = https;
        } else {
            http = HttpServer.create(address, 0);
        }
        http.createContext("/", server::handle);
        http.start();
    }
}
