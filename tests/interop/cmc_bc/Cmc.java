import java.io.*;
import java.math.BigInteger;
import java.nio.file.*;
import java.security.*;
import java.security.cert.*;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.*;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;
import org.bouncycastle.asn1.*;
import org.bouncycastle.asn1.cmc.*;
import org.bouncycastle.asn1.cms.ContentInfo;
import org.bouncycastle.asn1.nist.NISTObjectIdentifiers;
import org.bouncycastle.asn1.pkcs.PKCSObjectIdentifiers;
import org.bouncycastle.asn1.x509.AlgorithmIdentifier;
import org.bouncycastle.cert.X509CertificateHolder;
import org.bouncycastle.cert.jcajce.JcaX509CertificateConverter;
import org.bouncycastle.cms.*;
import org.bouncycastle.cms.jcajce.*;
import org.bouncycastle.jce.provider.BouncyCastleProvider;
import org.bouncycastle.operator.ContentSigner;
import org.bouncycastle.operator.jcajce.*;
import org.bouncycastle.util.Store;

/** What our two BouncyCastle peers share: files, controls, MACs over a shared secret, signed messages, paths. */
final class Cmc {
    static final Provider BC = new BouncyCastleProvider();
    static final SecureRandom RANDOM = new SecureRandom();
    static final AlgorithmIdentifier SHA256 = new AlgorithmIdentifier(NISTObjectIdentifiers.id_sha256);
    static final AlgorithmIdentifier HMAC256 = new AlgorithmIdentifier(PKCSObjectIdentifiers.id_hmacWithSHA256);
    static final ASN1ObjectIdentifier RA_IDENTITY_WITNESS = CMCObjectIdentifiers.id_cmc.branch("35");

    static { Security.addProvider(BC); }

    private Cmc() { }

    /** Someone with a key and the certificates that vouch for it, own first. */
    record Identity(PrivateKey key, List<X509Certificate> chain) {
        X509Certificate certificate() { return chain.get(0); }
    }

    static List<X509Certificate> certificates(Path file) throws Exception {
        List<X509Certificate> found = new ArrayList<>();
        try (InputStream in = Files.newInputStream(file)) {
            for (java.security.cert.Certificate each : CertificateFactory.getInstance("X.509").generateCertificates(in)) {
                found.add((X509Certificate) each);
            }
        }
        return found;
    }

    /** NAME.pem, a chain, and NAME.key, PKCS #8 in DER. */
    static Identity identity(Path home, String name) throws Exception {
        List<X509Certificate> chain = certificates(home.resolve(name + ".pem"));
        byte[] key = Files.readAllBytes(home.resolve(name + ".key"));
        return new Identity(
            KeyFactory.getInstance(chain.get(0).getPublicKey().getAlgorithm()).generatePrivate(new PKCS8EncodedKeySpec(key)), chain);
    }

    static ContentSigner signer(PrivateKey key) throws Exception {
        return new JcaContentSignerBuilder(key.getAlgorithm().equals("RSA") ? "SHA256withRSA" : "SHA256withECDSA").build(key);
    }

    static byte[] random(int size) {
        byte[] octets = new byte[size];
        RANDOM.nextBytes(octets);
        return octets;
    }

    static byte[] digest(AlgorithmIdentifier algorithm, byte[]... parts) throws Exception {
        MessageDigest digest = MessageDigest.getInstance(algorithm.getAlgorithm().getId(), BC);
        for (byte[] part : parts) { digest.update(part); }
        return digest.digest();
    }

    static byte[] mac(AlgorithmIdentifier algorithm, byte[] key, byte[] message) throws Exception {
        Mac mac = Mac.getInstance(algorithm.getAlgorithm().getId(), BC);
        mac.init(new SecretKeySpec(key, algorithm.getAlgorithm().getId()));
        return mac.doFinal(message);
    }

    static TaggedAttribute control(long id, ASN1ObjectIdentifier type, ASN1Encodable value) {
        return new TaggedAttribute(new BodyPartID(id), type, new DERSet(value));
    }

    /** The one value of the one control of a type, or null. Two of them, or a set of another size, are refused. */
    static ASN1Encodable value(TaggedAttribute[] controls, ASN1ObjectIdentifier type) throws Refused {
        ASN1Encodable found = null;
        for (TaggedAttribute control : controls) {
            if (!control.getAttrType().equals(type)) { continue; }
            if (found != null || control.getAttrValues().size() != 1) {
                throw new Refused(CMCFailInfo.badRequest, "control " + type + " must be there once, with one value");
            }
            found = control.getAttrValues().getObjectAt(0);
        }
        return found;
    }

    static byte[] octets(TaggedAttribute[] controls, ASN1ObjectIdentifier type) throws Refused {
        ASN1Encodable found = value(controls, type);
        return found == null ? null : ASN1OctetString.getInstance(found).getOctets();
    }

    /** SignedData over *content*; SKI, not a certificate, names the signer if *keyIdentifier* is given. */
    static byte[] sign(ASN1ObjectIdentifier type, byte[] content, Identity by, byte[] keyIdentifier, Collection<?> certificates,
            Collection<?> crls) throws Exception {
        CMSSignedDataGenerator generator = new CMSSignedDataGenerator();
        JcaSignerInfoGeneratorBuilder info = new JcaSignerInfoGeneratorBuilder(new JcaDigestCalculatorProviderBuilder().build());
        generator.addSignerInfoGenerator(keyIdentifier == null
            ? info.build(signer(by.key()), by.certificate()) : info.build(signer(by.key()), keyIdentifier));
        for (Object each : certificates) {
            generator.addCertificate(each instanceof X509CertificateHolder
                ? (X509CertificateHolder) each : new X509CertificateHolder(((X509Certificate) each).getEncoded()));
        }
        for (Object each : crls) { generator.addCRL((org.bouncycastle.cert.X509CRLHolder) each); }
        return generator.generate(new CMSProcessableByteArray(type, content), true).toASN1Structure().getEncoded("DER");
    }

    /** A message whose content type is right and that has at most one signer, whose signature is still to be judged. */
    static CMSSignedData open(byte[] message, ASN1ObjectIdentifier type) throws Exception {
        CMSSignedData signed;
        try (ASN1InputStream in = new ASN1InputStream(message)) {
            signed = new CMSSignedData(ContentInfo.getInstance(in.readObject()));
            if (in.readObject() != null) { throw new Refused(CMCFailInfo.badRequest, "octets after the message"); }
        }
        if (!type.getId().equals(signed.getSignedContentTypeOID())) {
            throw new Refused(CMCFailInfo.badRequest, "the content is " + signed.getSignedContentTypeOID());
        }
        if (signed.getSignerInfos().size() > 1) {
            throw new Refused(CMCFailInfo.badRequest, signed.getSignerInfos().size() + " signers");
        }
        return signed;
    }

    static byte[] content(CMSSignedData signed) { return (byte[]) signed.getSignedContent().getContent(); }

    /** The embedded certificate of the signer, or null; verified by it, and standing under *anchors*. */
    static X509Certificate signerCertificate(CMSSignedData signed, List<X509Certificate> anchors) throws Exception {
        SignerInformation signer = signed.getSignerInfos().iterator().next();
        @SuppressWarnings("unchecked") Store<X509CertificateHolder> embedded = signed.getCertificates();
        @SuppressWarnings("unchecked") Collection<X509CertificateHolder> found = embedded.getMatches(signer.getSID());
        if (found.isEmpty()) { return null; }
        X509Certificate certificate = new JcaX509CertificateConverter().getCertificate(found.iterator().next());
        if (!signer.verify(new JcaSimpleSignerInfoVerifierBuilder().setProvider(BC).build(certificate))) {
            throw new Refused(CMCFailInfo.badMessageCheck, "the signature is wrong");
        }
        List<X509Certificate> all = new ArrayList<>();
        for (X509CertificateHolder each : embedded.getMatches(null)) {
            all.add(new JcaX509CertificateConverter().getCertificate(each));
        }
        checkPath(certificate, all, anchors);
        return certificate;
    }

    static void checkPath(X509Certificate certificate, Collection<X509Certificate> between, List<X509Certificate> anchors)
            throws Exception {
        Set<TrustAnchor> trust = new HashSet<>();
        for (X509Certificate anchor : anchors) { trust.add(new TrustAnchor(anchor, null)); }
        X509CertSelector target = new X509CertSelector();
        target.setCertificate(certificate);
        PKIXBuilderParameters parameters = new PKIXBuilderParameters(trust, target);
        parameters.setRevocationEnabled(false);
        parameters.addCertStore(CertStore.getInstance("Collection", new CollectionCertStoreParameters(between)));
        try {
            CertPathBuilder.getInstance("PKIX").build(parameters);
        } catch (CertPathBuilderException error) {
            throw new Refused(CMCFailInfo.badIdentity, "no path from " + certificate.getSubjectX500Principal() + ": " + error.getMessage());
        }
    }

    static String hex(BigInteger serial) { return serial.toString(16); }

    /** The other side broke a rule. */
    static final class Refused extends Exception {
        final CMCFailInfo info;

        Refused(CMCFailInfo info, String why) {
            super(why);
            this.info = info;
        }
    }
}
