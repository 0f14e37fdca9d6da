import java.io.*;
import java.math.BigInteger;
import java.net.*;
import java.nio.charset.StandardCharsets;
import java.nio.file.*;
import java.security.*;
import java.security.cert.X509Certificate;
import java.security.spec.ECGenParameterSpec;
import java.util.*;
import javax.net.ssl.*;
import org.bouncycastle.asn1.*;
import org.bouncycastle.asn1.cmc.*;
import org.bouncycastle.asn1.cms.IssuerAndSerialNumber;
import org.bouncycastle.asn1.crmf.*;
import org.bouncycastle.asn1.x500.X500Name;
import org.bouncycastle.asn1.x509.*;
import org.bouncycastle.asn1.x509.Extension;
import org.bouncycastle.cert.*;
import org.bouncycastle.cert.crmf.*;
import org.bouncycastle.cert.crmf.jcajce.JcaCertificateRequestMessageBuilder;
import org.bouncycastle.cert.jcajce.*;
import org.bouncycastle.cms.*;
import org.bouncycastle.cms.jcajce.*;
import org.bouncycastle.operator.ContentSigner;
import org.bouncycastle.pkcs.jcajce.JcaPKCS10CertificationRequestBuilder;

/**
 * A CMC client made of BouncyCastle's classes: one transaction with a server, every answer judged.
 * Arguments: a directory, a URL, then settings as name=value:
 *   do=enroll|revoke|getcert|getcrl   form=tcr|crm|decrypt   by=NAME (NAME.pem, NAME.key) or by=key (the new key itself)
 *   subject=DN   dns=NAME   identification=NAME secret=TEXT   passphrase=TEXT   serial=HEX   est=yes
 *   wrong=signature|pop|witness|link|nonce-missing|part|control|swapped|decryption: breaks just that
 * The directory holds anchors.pem, under which answers must stand, and issuer.pem, the CA. The last line printed is the outcome.
 */
public final class CmcClient {
    private static final ASN1ObjectIdentifier UNHEARD_OF = new ASN1ObjectIdentifier("1.3.6.1.4.1.99999.7");
    private final Path home;
    private final URL url;
    private final Map<String, String> settings = new HashMap<>();
    private final List<X509Certificate> anchors;
    private final BigInteger transaction = new BigInteger(63, Cmc.RANDOM).add(BigInteger.ONE);
    private byte[] nonce;
    private byte[] theirs;
    private KeyPair pair;

    private CmcClient(String[] arguments) throws Exception {
        home = Path.of(arguments[0]);
        url = new URL(arguments[1]);
        for (int i = 2; i < arguments.length; i++) {
            String[] parts = arguments[i].split("=", 2);
            settings.put(parts[0], parts[1]);
        }
        anchors = Cmc.certificates(home.resolve("anchors.pem"));
    }

    private String get(String name) { return settings.getOrDefault(name, ""); }

    private boolean wrong(String what) { return get("wrong").equals(what); }

    /** What the server says, once everything that can be judged about it has been. */
    private record Answer(CMSSignedData signed, TaggedAttribute[] controls, CMCStatusInfoV2 status) {
        /** 0 for a Simple PKI Response: it is only ever a success. */
        int code() { return status == null ? 0 : ((ASN1Integer) status.getCMCStatus().toASN1Primitive()).intValueExact(); }

        X509CertificateHolder certificateFor(PublicKey key) throws Exception {
            @SuppressWarnings("unchecked") Collection<X509CertificateHolder> all = signed.getCertificates().getMatches(null);
            for (X509CertificateHolder each : all) {
                if (Arrays.equals(each.getSubjectPublicKeyInfo().getEncoded(), key.getEncoded())) { return each; }
            }
            throw new Cmc.Refused(CMCFailInfo.badRequest, "no certificate for the key in the answer");
        }
    }

    private List<TaggedAttribute> controls() {
        List<TaggedAttribute> controls = new ArrayList<>();
        nonce = Cmc.random(20);
        controls.add(Cmc.control(101, CMCObjectIdentifiers.id_cmc_transactionId, new ASN1Integer(transaction)));
        if (!wrong("nonce-missing")) { controls.add(Cmc.control(102, CMCObjectIdentifiers.id_cmc_senderNonce, new DEROctetString(nonce))); }
        if (theirs != null) { controls.add(Cmc.control(103, CMCObjectIdentifiers.id_cmc_recipientNonce, new DEROctetString(theirs))); }
        if (wrong("control")) { controls.add(Cmc.control(104, UNHEARD_OF, new DEROctetString(new byte[4]))); }
        return controls;
    }

    private Answer exchange(List<TaggedAttribute> controls, TaggedRequest... requests) throws Exception {
        byte[] content = new PKIData(controls.toArray(new TaggedAttribute[0]), requests, new TaggedContentInfo[0], new OtherMsg[0]).getEncoded("DER");
        byte[] message;
        if (get("by").equals("key")) {
            Cmc.Identity self = new Cmc.Identity(pair.getPrivate(), List.of());
            message = Cmc.sign(CMCObjectIdentifiers.id_cct_PKIData, content, self, keyIdentifier(), List.of(), List.of());
        } else {
            Cmc.Identity by = Cmc.identity(home, get("by"));
            message = Cmc.sign(CMCObjectIdentifiers.id_cct_PKIData, content, by, null, by.chain(), List.of());
        }
        if (wrong("signature")) { message[message.length - 3] ^= 1; }
        return judge(send(message));
    }

    private byte[] keyIdentifier() throws Exception {
        return new JcaX509ExtensionUtils().createSubjectKeyIdentifier(pair.getPublic()).getKeyIdentifier();
    }

    private byte[] send(byte[] message) throws Exception {
        boolean est = get("est").equals("yes");
        HttpURLConnection connection = (HttpURLConnection) url.openConnection();
        if (connection instanceof HttpsURLConnection https) {
            KeyStore trust = KeyStore.getInstance(KeyStore.getDefaultType());
            trust.load(null);
            for (X509Certificate each : anchors) { trust.setCertificateEntry(each.getSerialNumber().toString(), each); }
            TrustManagerFactory trusted = TrustManagerFactory.getInstance("PKIX");
            trusted.init(trust);
            KeyManagerFactory keys = KeyManagerFactory.getInstance("PKIX");
            KeyStore own = KeyStore.getInstance("PKCS12");
            own.load(null, null);
            if (!get("tls").isEmpty()) {
                Cmc.Identity who = Cmc.identity(home, get("tls"));
                own.setKeyEntry("own", who.key(), new char[0], who.chain().toArray(new X509Certificate[0]));
            }
            keys.init(own, new char[0]);
            SSLContext context = SSLContext.getInstance("TLS");
            context.init(keys.getKeyManagers(), trusted.getTrustManagers(), null);
            https.setSSLSocketFactory(context.getSocketFactory());
        }
        connection.setDoOutput(true);
        connection.setRequestProperty("Content-Type", "application/pkcs7-mime; smime-type=CMC-request");
        if (est) { connection.setRequestProperty("Content-Transfer-Encoding", "base64"); }
        try (OutputStream out = connection.getOutputStream()) { out.write(est ? Base64.getMimeEncoder().encode(message) : message); }
        InputStream in = connection.getResponseCode() < 400 ? connection.getInputStream() : connection.getErrorStream();
        byte[] body = in == null ? new byte[0] : in.readAllBytes();
        String type = String.valueOf(connection.getContentType());
        System.out.println("http " + connection.getResponseCode() + " " + type);
        if (!type.startsWith("application/pkcs7-mime") || !(type.contains("smime-type=CMC-response") || type.contains("smime-type=certs-only"))) {
            throw new IOException("Content-Type " + type + ": " + new String(body, StandardCharsets.ISO_8859_1));
        }
        return est ? Base64.getMimeDecoder().decode(body) : body;
    }

    /** Certificates and CRLs alone, or signed by a CMC server under the anchors in answer to this very message. */
    private Answer judge(byte[] message) throws Exception {
        CMSSignedData bare = new CMSSignedData(message);
        if (bare.getSignerInfos().size() == 0 && bare.getSignedContent() == null) { return new Answer(bare, new TaggedAttribute[0], null); }
        CMSSignedData signed = Cmc.open(message, CMCObjectIdentifiers.id_cct_PKIResponse);
        X509Certificate by = Cmc.signerCertificate(signed, anchors);
        if (by == null) { throw new Cmc.Refused(CMCFailInfo.badMessageCheck, "the answer's signer is not there"); }
        List<String> uses = by.getExtendedKeyUsage();
        boolean server = uses != null && (uses.contains(CMCObjectIdentifiers.id_kp_cmcRA.getId()) || uses.contains(CMCObjectIdentifiers.id_kp_cmcCA.getId()));
        if (!server && by.getBasicConstraints() < 0) { throw new Cmc.Refused(CMCFailInfo.badIdentity, "the signer is neither a CA nor a CMC server"); }
        PKIResponse response = PKIResponse.getInstance(Cmc.content(signed));
        TaggedAttribute[] controls = new TaggedAttribute[response.getControlSequence().size()];
        Set<Long> parts = new HashSet<>();
        for (int i = 0; i < controls.length; i++) {
            controls[i] = TaggedAttribute.getInstance(response.getControlSequence().getObjectAt(i));
            if (!parts.add(controls[i].getBodyPartID().getID())) { throw new Cmc.Refused(CMCFailInfo.badRequest, "a body part twice"); }
        }
        CMCStatusInfoV2 status = CMCStatusInfoV2.getInstance(Cmc.value(controls, CMCObjectIdentifiers.id_cmc_statusInfoV2));
        if (status == null) { throw new Cmc.Refused(CMCFailInfo.badRequest, "no CMCStatusInfoV2"); }
        ASN1Encodable echoed = Cmc.value(controls, CMCObjectIdentifiers.id_cmc_transactionId);
        byte[] returned = Cmc.octets(controls, CMCObjectIdentifiers.id_cmc_recipientNonce);
        theirs = Cmc.octets(controls, CMCObjectIdentifiers.id_cmc_senderNonce);
        if (echoed == null && returned == null && status.getCMCStatus().equals(CMCStatus.failed)) {
            System.out.println("unechoed"); // the server could not read, or did not believe, what it would have to repeat
        } else {
            if (echoed == null || !ASN1Integer.getInstance(echoed).hasValue(transaction)) { throw new Cmc.Refused(CMCFailInfo.badRequest, "another transaction"); }
            if (!wrong("nonce-missing") && !Arrays.equals(returned, nonce)) { throw new Cmc.Refused(CMCFailInfo.badRequest, "another nonce"); }
            if (!wrong("nonce-missing") && theirs == null) { throw new Cmc.Refused(CMCFailInfo.badRequest, "no nonce of the server's"); }
        }
        for (BodyPartID each : status.getBodyList()) { System.out.println("about " + each.getID()); }
        return new Answer(signed, controls, status);
    }

    private TaggedRequest request(List<TaggedAttribute> controls) throws Exception {
        KeyPairGenerator generator = KeyPairGenerator.getInstance(get("form").equals("decrypt") ? "RSA" : "EC");
        if (get("form").equals("decrypt")) { generator.initialize(2048); } else { generator.initialize(new ECGenParameterSpec("secp256r1")); }
        pair = generator.generateKeyPair();
        PopLinkWitnessV2 link = null;
        byte[] secret = get("secret").getBytes(StandardCharsets.UTF_8);
        if (secret.length > 0) {
            byte[] random = Cmc.random(64);
            controls.add(Cmc.control(105, CMCObjectIdentifiers.id_cmc_popLinkRandom, new DEROctetString(random)));
            byte[] witness = Cmc.mac(Cmc.HMAC256, Cmc.digest(Cmc.SHA256, secret), random);
            if (wrong("link")) { witness[0] ^= 1; }
            link = new PopLinkWitnessV2(Cmc.SHA256, Cmc.HMAC256, witness);
        }
        ExtensionsGenerator wanted = new ExtensionsGenerator();
        wanted.addExtension(Extension.subjectKeyIdentifier, false, new SubjectKeyIdentifier(keyIdentifier()));
        if (!get("dns").isEmpty()) {
            wanted.addExtension(Extension.subjectAlternativeName, false, new GeneralNames(new GeneralName(GeneralName.dNSName, get("dns"))));
        }
        Extensions extensions = wanted.generate();
        PrivateKey signs = pair.getPrivate();
        if (wrong("pop")) {
            generator.initialize(new ECGenParameterSpec("secp256r1"));
            signs = generator.generateKeyPair().getPrivate();
        }
        long part = wrong("part") ? 101 : 1;
        X500Name subject = get("subject").isEmpty()
            ? X500Name.getInstance(Cmc.identity(home, get("by")).certificate().getSubjectX500Principal().getEncoded()) : new X500Name(get("subject"));
        TaggedRequest request;
        if (get("form").equals("tcr")) {
            JcaPKCS10CertificationRequestBuilder builder = new JcaPKCS10CertificationRequestBuilder(subject, pair.getPublic());
            builder.addAttribute(org.bouncycastle.asn1.pkcs.PKCSObjectIdentifiers.pkcs_9_at_extensionRequest, extensions);
            if (link != null) { builder.addAttribute(CMCObjectIdentifiers.id_cmc_popLinkWitnessV2, link); }
            byte[] csr = builder.build(Cmc.signer(signs)).getEncoded();
            request = new TaggedRequest(new TaggedCertificationRequest(new BodyPartID(part), CertificationRequest.getInstance(csr)));
        } else {
            JcaCertificateRequestMessageBuilder builder = new JcaCertificateRequestMessageBuilder(BigInteger.valueOf(part));
            builder.setSubject(subject).setPublicKey(SubjectPublicKeyInfo.getInstance(pair.getPublic().getEncoded()));
            for (ASN1ObjectIdentifier oid : extensions.getExtensionOIDs()) {
                builder.addExtension(oid, false, extensions.getExtensionParsedValue(oid));
            }
            if (link != null) { builder.addControl(new LinkControl(link)); }
            if (get("form").equals("decrypt")) {
                builder.setProofOfPossessionSubsequentMessage(SubsequentMessage.challengeResp);
            } else {
                builder.setProofOfPossessionSigningKeySigner(Cmc.signer(signs));
            }
            request = new TaggedRequest(builder.build().toASN1Structure());
        }
        if (secret.length > 0) {
            byte[] name = get("identification").getBytes(StandardCharsets.UTF_8);
            if (name.length > 0) { controls.add(Cmc.control(106, CMCObjectIdentifiers.id_cmc_identification, new DERUTF8String(get("identification")))); }
            byte[] covered = new DERSequence(request).getEncoded("DER");
            byte[] witness = Cmc.mac(Cmc.HMAC256, Cmc.digest(Cmc.SHA256, secret, name), covered);
            if (wrong("witness")) { witness[0] ^= 1; }
            controls.add(Cmc.control(107, CMCObjectIdentifiers.id_cmc_identityProofV2, new IdentityProofV2(Cmc.SHA256, Cmc.HMAC256, witness)));
        }
        return request;
    }

    private record LinkControl(PopLinkWitnessV2 link) implements Control {
        public ASN1ObjectIdentifier getType() { return CMCObjectIdentifiers.id_cmc_popLinkWitnessV2; }

        public ASN1Encodable getValue() { return link; }
    }

    private Answer enroll() throws Exception {
        List<TaggedAttribute> controls = controls();
        TaggedRequest request = request(controls);
        Answer answer = exchange(controls, request);
        for (int polls = 0; answer.code() == 3 && polls < 5; polls++) {
            PendInfo wait = PendInfo.getInstance(answer.status().getOtherStatusInfo().toASN1Primitive());
            System.out.println("pending");
            controls = controls();
            controls.add(Cmc.control(108, CMCObjectIdentifiers.id_cmc_queryPending, new DEROctetString(wait.getPendToken())));
            answer = exchange(controls);
        }
        if (Cmc.value(answer.controls(), CMCObjectIdentifiers.id_cmc_encryptedPOP) != null) {
            controls = controls();
            controls.add(Cmc.control(109, CMCObjectIdentifiers.id_cmc_decryptedPOP, decrypt(answer, request)));
            answer = exchange(controls, request);
        }
        if (answer.code() == 0 || answer.code() == 5) { take(answer); }
        if (answer.code() == 5) {
            X509CertificateHolder got = answer.certificateFor(pair.getPublic());
            controls = controls();
            controls.add(Cmc.control(110, CMCObjectIdentifiers.id_cmc_confirmCertAcceptance,
                new IssuerAndSerialNumber(got.getIssuer(), got.getSerialNumber())));
            controls.add(Cmc.control(111, CMCObjectIdentifiers.id_cmc_statusInfoV2,
                new CMCStatusInfoV2Builder(CMCStatus.success, new BodyPartID(1)).build()));
            System.out.println("confirming");
            answer = exchange(controls);
        }
        return answer;
    }

    private DecryptedPOP decrypt(Answer answer, TaggedRequest request) throws Exception {
        EncryptedPOP given = EncryptedPOP.getInstance(Cmc.value(answer.controls(), CMCObjectIdentifiers.id_cmc_encryptedPOP));
        if (!Arrays.equals(given.getRequest().getEncoded("DER"), request.getEncoded("DER"))) {
            throw new Cmc.Refused(CMCFailInfo.badRequest, "the challenge is about another request");
        }
        CMSEnvelopedData enveloped = new CMSEnvelopedData(given.getCms());
        RecipientInformation recipient = enveloped.getRecipientInfos().iterator().next();
        byte[] value = recipient.getContent(new JceKeyTransEnvelopedRecipient(pair.getPrivate()).setProvider(Cmc.BC));
        if (!MessageDigest.isEqual(Cmc.digest(given.getWitnessAlgID(), value), given.getWitness())) {
            throw new Cmc.Refused(CMCFailInfo.popFailed, "the challenge's own witness is wrong");
        }
        byte[] proof = Cmc.mac(given.getThePOPAlgID(), value, request.getEncoded("DER"));
        if (wrong("decryption")) { proof[0] ^= 1; }
        System.out.println("decrypted");
        return new DecryptedPOP(new BodyPartID(1), given.getThePOPAlgID(), proof);
    }

    /** The certificate and its key, as the identity "issued" for what comes next. */
    private void take(Answer answer) throws Exception {
        X509CertificateHolder got = answer.certificateFor(pair.getPublic());
        @SuppressWarnings("unchecked") Collection<X509CertificateHolder> all = answer.signed().getCertificates().getMatches(null);
        List<X509Certificate> between = new ArrayList<>();
        for (X509CertificateHolder each : all) { between.add(new JcaX509CertificateConverter().getCertificate(each)); }
        X509Certificate certificate = new JcaX509CertificateConverter().getCertificate(got);
        Cmc.checkPath(certificate, between, anchors);
        Files.writeString(home.resolve("issued.pem"), "-----BEGIN CERTIFICATE-----\n"
            + Base64.getMimeEncoder(64, new byte[] {'\n'}).encodeToString(certificate.getEncoded()) + "\n-----END CERTIFICATE-----\n");
        Files.write(home.resolve("issued.key"), pair.getPrivate().getEncoded());
        System.out.println("certificate " + Cmc.hex(certificate.getSerialNumber()) + " " + certificate.getSubjectX500Principal());
    }

    private Answer run() throws Exception {
        List<TaggedAttribute> controls = controls();
        X500Name issuer = X500Name.getInstance(Cmc.certificates(home.resolve("issuer.pem")).get(0).getSubjectX500Principal().getEncoded());
        switch (get("do")) {
            case "enroll":
                return enroll();
            case "revoke":
                ASN1OctetString passphrase = get("passphrase").isEmpty() ? null : new DEROctetString(get("passphrase").getBytes(StandardCharsets.UTF_8));
                controls.add(Cmc.control(1, CMCObjectIdentifiers.id_cmc_revokeRequest, new RevokeRequest(
                    issuer, new ASN1Integer(new BigInteger(get("serial"), 16)), CRLReason.lookup(CRLReason.superseded), null, passphrase, null)));
                return exchange(controls);
            case "getcert":
                controls.add(Cmc.control(1, CMCObjectIdentifiers.id_cmc_getCert,
                    new GetCert(new GeneralName(issuer), new BigInteger(get("serial"), 16))));
                Answer found = exchange(controls);
                @SuppressWarnings("unchecked") Collection<X509CertificateHolder> all = found.signed().getCertificates().getMatches(null);
                for (X509CertificateHolder each : all) { System.out.println("got " + Cmc.hex(each.getSerialNumber())); }
                return found;
            case "getcrl":
                controls.add(Cmc.control(1, CMCObjectIdentifiers.id_cmc_getCRL, new GetCRL(issuer, null, null, null)));
                Answer listed = exchange(controls);
                @SuppressWarnings("unchecked") Collection<X509CRLHolder> crls = listed.signed().getCRLs().getMatches(null);
                for (X509CRLHolder each : crls) {
                    System.out.println("crl of " + each.getIssuer());
                    for (Object entry : each.getRevokedCertificates()) { System.out.println("revoked " + Cmc.hex(((X509CRLEntryHolder) entry).getSerialNumber())); }
                }
                return listed;
            default:
                throw new IllegalArgumentException("do=" + get("do"));
        }
    }

    public static void main(String[] arguments) throws Exception {
        Answer answer;
        try {
            answer = new CmcClient(arguments).run();
        } catch (Cmc.Refused refused) {
            System.out.println("the answer is refused: " + refused.getMessage());
            System.exit(2);
            return;
        }
        if (answer.code() == 0) {
            System.out.println("success");
            return;
        }
        OtherStatusInfo other = answer.status().getOtherStatusInfo();
        if (answer.status().getStatusStringUTF8() != null) { System.out.println("says " + answer.status().getStatusStringUTF8().getString()); }
        System.out.println("status " + answer.code() + " failInfo " + (other != null && other.isFailInfo() ? other.toASN1Primitive() : "none"));
        System.exit(1);
    }
}
